"""Unseen runs: settings that are drawn by lot, so that nothing can have been fitted to them."""
