"""Detecting: readings in, alerts with their likely cause out."""
