"""The version, alone, so that every folder can name it."""

__version__ = "0.2.0"
