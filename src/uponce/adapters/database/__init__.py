"""The Database port on SQL engines, one module per back end."""
