"""The Database port on PostgreSQL: for any number of servers."""

from uponce.adapters.database.postgres.database import PostgresDatabase

__all__ = ["PostgresDatabase"]
