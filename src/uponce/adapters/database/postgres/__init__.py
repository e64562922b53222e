"""The Database port on PostgreSQL: for any number of servers."""

from uponce.adapters.database.postgres.connection import Address
from uponce.adapters.database.postgres.database import PostgresDatabase, is_set_up

__all__ = ["Address", "PostgresDatabase", "is_set_up"]
