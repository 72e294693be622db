"""What a run shows in MLflow: tags, tables, pictures, a page."""
