"""Media upload signatures that work once."""

__version__ = "0.1.0"
