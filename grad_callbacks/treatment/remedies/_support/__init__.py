"""What several remedies have in common."""
