"""The Database port on SQL engines, one package per engine; rows.py is what they share."""
