"""The version, kept apart from the package itself, so that every room can read it."""

__version__ = "0.1.0"
