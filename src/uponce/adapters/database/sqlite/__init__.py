"""The Database port on one SQLite file: for one machine."""

from uponce.adapters.database.sqlite.database import SqliteDatabase

__all__ = ["SqliteDatabase"]
