"""The time that counts: that of the database, one for all servers."""

from dataclasses import dataclass
from typing import Any, LiteralString

from uponce.adapters.database.postgres.connection import Connection, Cursor
from uponce.app.ports import Clock


@dataclass(frozen=True, slots=True)
class Moment:
    """Unix seconds as an SQL expression, to be bound to `values`. A `clock` in place of the database's is for tests."""

    clock: Clock | None = None
    sql: LiteralString = "coalesce(%(now)s::float8, extract(epoch FROM clock_timestamp())::float8)"

    @property
    def values(self) -> dict[str, Any]:
        return {"now": None if self.clock is None else self.clock.now()}

    async def ask(self, connection: Connection) -> Cursor:
        return await connection.execute(f"SELECT {self.sql}", self.values)

    async def read(self, connection: Connection) -> float:
        return await answer(await self.ask(connection))


async def answer(asked: Cursor) -> float:
    row = await asked.fetchone()
    assert row is not None
    now: float = row[0]
    return now
