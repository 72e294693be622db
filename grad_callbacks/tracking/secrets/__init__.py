"""Masking secrets before they are logged."""
