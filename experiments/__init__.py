"""Experiments with the plugin: runs, models, data and the demo. Uses its public names alone, as a user would."""
