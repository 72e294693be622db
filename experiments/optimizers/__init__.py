"""Optimizers of many packages under the callbacks: none ends a training through us, none is changed when healthy."""
