"""The check reports a clock that differs from that of PostgreSQL, even in a database without rows."""

import re
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.databases import PlainBox, SteppedClock, run
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.app.check import check_clock
from uponce.core.policy import Limits


@pytest.mark.parametrize(
    ("off", "told"),
    [
        (7200, "The clock is N seconds ahead of the database's clock"),
        (-7200, "The clock is N seconds behind the database's clock"),
        (200, ""),
        (-200, ""),
    ],
)
def test_a_clock_that_differs_from_the_database_is_a_warning(off: int, told: str) -> None:
    database = PostgresDatabase(shared().fresh_schema(), secrets=PlainBox(), seconds=60)
    database.open()
    clock = SteppedClock()
    clock.time = int(time.time()) + off
    services: Any = SimpleNamespace(database=database, limits=Limits(), clock=clock)
    try:
        warning = run(check_clock(services))
    finally:
        database.close()
    assert re.sub(r"[\d,]+", "N", (warning or "").partition(". ")[0]) == told
