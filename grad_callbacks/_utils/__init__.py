"""Helpers that know nothing of gradients."""
