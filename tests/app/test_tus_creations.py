"""A creation of tus that has all bytes, and whose completion fails: no client knows the address of its upload."""

from typing import Any

import pytest

from tests.app.failing import Failing
from tests.app.test_series import DOWN
from tests.app.test_tus import DATA, world
from tests.chunks import NO_ROWS, rows
from tests.tus import Client, assert_refused, play, stored
from tests.world import World
from uponce.app.uploading import resumable
from uponce.core.errors import OutcomeUnknown, UponceError

__all__ = ["world"]  # a fixture


@pytest.mark.parametrize("failure", [DOWN, OutcomeUnknown("unknown")], ids=["not done", "unknown"])
@pytest.mark.parametrize("ends", [True, False], ids=["ended", "left"])
def test_a_creation_with_bytes_whose_commit_fails_may_be_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch, failure: UponceError, ends: bool
) -> None:
    """No client knows its address, so no client can complete it. The database may be away for the end of it, too."""
    monkeypatch.setattr(resumable, "_PATIENCE_SECONDS", 0)
    client, healthy = Client(world, DATA), world.services
    left = {} if ends else {"end_series": DOWN}
    world.swap(database=Failing(world.database, before={"commit_series": failure, **left}))
    (refused,) = play(lambda: client.create(body=[DATA]))
    assert_refused(refused, 503, failure.code)
    assert rows(world)["series"] == (0 if ends else 1)
    world.use(healthy)
    (made,) = play(lambda: client.create(body=[DATA]))
    assert made.status == 201
    assert stored(world, made.headers["upload-asset"]) == DATA
    assert (rows(world), world.traces().spooled) == (NO_ROWS, frozenset())
    assert (world.traces().assets, world.traces().grants, len(world.traces().blobs)) == (1, 1, 1)


def test_a_creation_with_bytes_ends_when_the_database_is_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within seconds, before its client sends it again."""
    monkeypatch.setattr(resumable, "_PATIENCE_SECONDS", 60)
    monkeypatch.setattr(resumable, "_PAUSE_SECONDS", 0)
    client, end = Client(world, DATA), world.database.end_series
    tries = 0

    async def end_later(*arguments: Any, **more: Any) -> bool:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise DOWN
        return await end(*arguments, **more)

    monkeypatch.setattr(world.database, "end_series", end_later)
    world.swap(database=Failing(world.database, before={"commit_series": DOWN}))
    (refused,) = play(lambda: client.create(body=[DATA]))
    assert_refused(refused, 503, "database_unavailable")
    assert (tries, rows(world), world.traces().spooled) == (3, NO_ROWS, frozenset())


def test_a_commit_whose_reply_comes_late_is_not_ended(world: World) -> None:
    """It has happened, and the server could not read it back. The end of the series deletes nothing."""
    client, healthy = Client(world, DATA), world.services
    away = Failing(world.database, before={"confirm_reply": DOWN, "confirm_commit": DOWN})
    world.swap(database=Failing(away, after={"commit_series": OutcomeUnknown("unknown")}))
    (refused,) = play(lambda: client.create(body=[DATA]))
    assert_refused(refused, 503, "outcome_unknown")
    world.use(healthy)
    (blob,) = (path for path in (world.media / "blobs").rglob("*") if path.is_file())
    assert (blob.read_bytes(), world.traces().assets) == (DATA, 1)
    assert_refused(play(lambda: client.create(body=[DATA]))[0], 400, "signature_used")
