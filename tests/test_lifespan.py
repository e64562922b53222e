"""Work that a server repeats: what it says of failures, which may last for days."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.test_wiring import SETTINGS, away, failures
from uponce.app.services import Services
from uponce.app.tidy_playground import Kept
from uponce.core.errors import DatabaseUnavailable
from uponce.lifespan import _repeat, lifespan
from uponce.wiring import build, build_metrics

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


@pytest.mark.parametrize(("name", "other"), [("relay", "notify"), ("notify", "relay")])
def test_each_outbox_that_fails_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, other: str
) -> None:
    settings = replace(SETTINGS, data=str(tmp_path))
    backend = build(settings, build_metrics(settings))

    async def look(_: Services, kind: str, __: object) -> None:
        if kind == name:
            await away()

    async def serve() -> None:
        async with lifespan(backend)(None), asyncio.timeout(60):
            while failures(backend, name) < 2:
                await asyncio.sleep(0.01)

    monkeypatch.setattr("uponce.lifespan._OFTEN_SECONDS", 0.01)
    monkeypatch.setattr("uponce.lifespan.run_due", look)
    asyncio.run(serve())
    assert failures(backend, other) == 0


@pytest.mark.parametrize("playground", ["off", "local", "public"])
def test_a_server_with_a_playground_tidies_it_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, playground: str
) -> None:
    kept: list[Kept] = []

    async def tidy(_: Services, limits: Kept) -> None:
        kept.append(limits)
        await away()

    limits = {"playground_keep_files": 1, "playground_keep_bytes": 2, "playground_keep_seconds": 3}
    settings = replace(SETTINGS, data=str(tmp_path), playground=playground, playground_bytes=4, **limits)
    server = build(settings, build_metrics(settings))

    async def serve() -> None:
        async with lifespan(server)(None):
            await asyncio.sleep(0.2)
            async with asyncio.timeout(60):
                while playground != "off" and len(kept) < 2:
                    await asyncio.sleep(0.01)

    monkeypatch.setattr("uponce.lifespan._OFTEN_SECONDS", 0.01)
    monkeypatch.setattr("uponce.lifespan.tidy_playground", tidy)
    with caplog.at_level(logging.ERROR, "uponce"):
        asyncio.run(serve())
    logged = [each for each in caplog.records if "old files of the playground failed" in each.message]
    if playground == "off":
        assert (kept, logged) == ([], [])
    else:
        assert set(kept) == {Kept(files=1, bytes=2, seconds=3, file_bytes=4)}
        assert len(kept) >= 2
        assert len(logged) == 1
    assert failures(server, "playground") == len(kept)
