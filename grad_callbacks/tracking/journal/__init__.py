"""The journal: what goes to MLflow is written down first, and sent from there."""
