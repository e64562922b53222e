"""Work that a server repeats: what it says of failures, which may last for days."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from uponce.core.errors import DatabaseUnavailable
from uponce.lifespan import _repeat

FROZEN = DatabaseUnavailable("The database is away.", detail="The database is frozen.")
SLOW = DatabaseUnavailable("The database is away.", detail="It is too slow.")


def logged(caplog: pytest.LogCaptureFixture, rounds: Sequence[Exception | None]) -> list[tuple[str, bool]]:
    """Return the lines of the log after these rounds, and whether they have a trace."""
    ended = asyncio.Event()
    outcomes = iter(rounds)

    async def work() -> None:
        outcome = next(outcomes, ended)
        if outcome is ended:
            ended.set()
            await asyncio.Event().wait()
        elif isinstance(outcome, Exception):
            raise outcome

    async def play() -> None:
        repeating = asyncio.create_task(_repeat("the outbox", 0, work, lambda: None))
        await asyncio.wait_for(ended.wait(), 60)
        repeating.cancel()

    with caplog.at_level(logging.WARNING, "uponce"):
        asyncio.run(play())
    return [(record.message, bool(record.exc_info)) for record in caplog.records]


def test_a_failure_that_lasts_is_logged_at_growing_distances(caplog: pytest.LogCaptureFixture) -> None:
    """Every two seconds a trace for each outbox made 55 MB a day, also on a database that was moved away from."""
    lines = logged(caplog, [FROZEN] * 1000)
    assert lines[0] == ("the outbox failed; the next round is in 0 seconds: The database is frozen.", True)
    counts = [2**exponent for exponent in range(1, 10)]
    assert lines[1:] == [
        (f"the outbox has failed {count} times without success: The database is frozen.", False) for count in counts
    ]


def test_each_new_reason_has_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    """Two reasons may take turns."""
    lines = logged(caplog, [FROZEN, SLOW, FROZEN, SLOW, FROZEN, ValueError("a fault"), SLOW])
    assert [(message.rpartition(": ")[2], trace) for message, trace in lines] == [
        ("The database is frozen.", True),
        ("It is too slow.", True),
        ("It is too slow.", False),
        ("ValueError('a fault')", True),
    ]


def test_a_reason_that_names_another_number_or_file_is_not_new(caplog: pytest.LogCaptureFixture) -> None:
    """A table grows, and each sweep begins at another folder."""
    reasons = [f"grants_other has {number} bytes, blob {number:032x}" for number in range(64)]
    lines = logged(caplog, [DatabaseUnavailable("", detail=reason) for reason in reasons])
    assert [trace for _, trace in lines] == [True] + 6 * [False]


def test_the_end_of_a_failure_is_logged_and_the_next_one_is_new(caplog: pytest.LogCaptureFixture) -> None:
    lines = logged(caplog, [None, FROZEN, FROZEN, FROZEN, None, None, FROZEN])
    assert [trace for _, trace in lines] == [True, False, False, True]
    assert lines[2][0] == "the outbox works again after 3 failures"
