"""What MLflow shows of a run: tags, tables, pictures and a page."""
