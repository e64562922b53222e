"""How long a server waits for PostgreSQL, from a moment of its life on."""

from collections.abc import Callable
from dataclasses import replace

from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.postgres.pool import Engine, discard

_ROUNDS = 5  # at most: other work on the machine only adds time, and a fault adds it in every round


def in_time(seconds: float, took: Callable[[], float]) -> bool:
    """Whether a round takes less than that, by the seconds that it says it took."""
    return any(took() < seconds for _ in range(_ROUNDS))


def wait_at_most(database: PostgresDatabase, seconds: int) -> None:
    """Change UPONCE_DATABASE_SECONDS of a running server, on new connections.

    A server that has few seconds from its start on does not start on a machine that stalls for so long.
    """
    database._address = database._pool._address = replace(database._address, seconds=seconds)
    database._pool.seconds = seconds
    while database._pool._idle:
        discard(database._pool._idle.pop())
    engine = database._committer._engine
    assert isinstance(engine, Engine)
    engine.disconnect()
