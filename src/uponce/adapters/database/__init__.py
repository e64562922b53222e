"""The Database port on SQL engines: a module for each table or group of tables, a package for each engine."""
