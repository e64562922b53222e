"""Deleting in batches: all of it, and with time for others in between."""

import asyncio

import pytest

from uponce.adapters.database.upkeep import BATCH, in_batches


def test_batches_go_on_until_one_is_not_full(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [BATCH, BATCH, 3, BATCH]
    rests: list[float] = []

    async def delete() -> int:
        return found.pop(0)

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr("uponce.adapters.database.upkeep.asyncio.sleep", sleep)
    assert asyncio.run(in_batches(delete)) == 2 * BATCH + 3
    assert found == [BATCH]
    assert len(rests) == 2
    assert all(seconds > 0 for seconds in rests)


def test_batches_end_after_their_time() -> None:
    found = [BATCH, BATCH]

    async def delete() -> int:
        return found.pop(0)

    assert asyncio.run(in_batches(delete, seconds=0)) == BATCH
    assert found == [BATCH]
