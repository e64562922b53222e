"""Operations that lock the same tables of PostgreSQL lock them in one order. Else two may wait for each other."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.test_database_parts import part
from tests.contract.test_database_series import series
from uponce.adapters.database import series as operations
from uponce.adapters.database import upkeep
from uponce.core.series import Series
from uponce.core.spans import Span


def test_a_recorded_part_locks_its_series_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def held(_: str) -> Generator[Any, Any, Series]:
        yield from ()
        return replace(series(), shared=True)

    monkeypatch.setattr(operations, "_hold", held)
    asks = next(operations.record.steps(0.0, "one", Span(0, 10), 10, [part(0, 10)]))
    assert [name for name, _ in asks] == ["grow_series", "add_part"]


@pytest.mark.parametrize("operation", [upkeep.freeze, upkeep.thaw_unfenced])
@pytest.mark.parametrize(
    ("first", "second"), [("series", "series_parts"), ("replies", "grants"), ("relays", "relay_grants")]
)
def test_freezing_and_thawing_lock_in_the_order_of_the_others(operation: Any, first: str, second: str) -> None:
    """`record` writes a series and then its parts; `find_reply` reads replies, `find_relay` relays first."""
    tables = list(dict.fromkeys(params["table"] for _, params in next(operation.steps(0.0))))
    assert tables.index(first) < tables.index(second)
