"""Classical and recent results, each with a small setting in which its direction can be seen."""
