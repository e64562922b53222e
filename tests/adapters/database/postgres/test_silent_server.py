"""How long uploads wait for a server that says nothing."""

import asyncio
import time

import pytest

from tests.adapters.database.postgres.patience import in_time, wait_at_most
from tests.contract.databases import PlainBox, SteppedClock, attempt, draft, grant, prepared, run
from tests.postgres import Postgres
from uponce.adapters.database.postgres import PostgresDatabase

COPIES = 1000


@pytest.mark.proof
def test_a_silent_server_keeps_no_upload_waiting() -> None:
    server = Postgres()
    server.start()
    try:
        url = prepared(server.fresh_schema())
        database = PostgresDatabase(url, secrets=PlainBox(), clock=SteppedClock(), seconds=60)
        database.open()
        wait_at_most(database, 1)
        server.pause(True)

        async def many() -> list[str]:
            uploads = (attempt(database, grant(f"{n}"), draft(f"{n}", blob=f"{n}")) for n in range(COPIES))
            return await asyncio.gather(*uploads)

        def refused() -> float:
            began = time.monotonic()
            assert set(run(many())) == {"database_unavailable"}
            return time.monotonic() - began

        assert in_time(10, refused)
        database.close()
    finally:
        server.pause(False)
        server.stop()
