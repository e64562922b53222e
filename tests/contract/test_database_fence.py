"""What any Database must do, run on every back end: after a fence nothing that may have been used is accepted."""

from dataclasses import replace
from functools import partial

import pytest

from tests.contract.databases import CALLER, KEY, OTHER, SKEW, START, Backend, attempt, draft, grant, run
from tests.contract.test_database_series import series
from uponce.app.ports import Database
from uponce.core.errors import StaleRequest


def watermarks(database: Database) -> list[int | None]:
    return [key.watermark for key in run(database.list_keys())]


@pytest.mark.parametrize(
    ("at", "told"),
    [
        (START - 10, "stale_request"),
        (START, "stale_request"),
        (START + SKEW, "stale_request"),  # the newest that can have been accepted
        (START + SKEW + 1, "ok"),
    ],
)
def test_up_to_the_skew_nothing_is_accepted_any_more(database: Database, at: int, told: str) -> None:
    assert run(database.fence(SKEW)) == START + SKEW
    assert run(attempt(database, grant(at=at), draft(blob="b"))) == told


def test_without_a_skew_the_fence_is_at_this_second(database: Database) -> None:
    assert run(database.fence(0)) == START


def test_every_key_is_fenced_and_every_server_knows(backend: Backend, database: Database) -> None:
    """Of any cloud, unlimited and revoked ones too; a key that is new afterwards has forgotten nothing."""
    other = backend.server()
    run(database.add_key(OTHER))
    run(database.add_key(replace(KEY, api_key="333", cloud="another")))
    run(database.revoke_key("333"))
    run(database.fence(SKEW))
    run(database.add_key(replace(KEY, api_key="444", created_at=START + 1), new=True))
    assert watermarks(database) == watermarks(other) == [START + SKEW] * 3 + [None]


def test_a_key_that_comes_back_after_a_fence_is_fenced_too(backend: Backend, database: Database) -> None:
    """The copy may be from before the key came, and its signatures may be spent. Of two fences the greater counts."""
    run(database.fence(SKEW))
    backend.clock.time = START - 3600
    assert run(database.fence(0)) == START - 3600
    backend.clock.time = START + 7 * 86400
    run(database.add_key(OTHER))
    assert run(attempt(database, grant("newest", key=OTHER, at=START + SKEW), draft(blob="a"))) == "stale_request"
    assert run(attempt(database, grant("fresh", key=OTHER, at=START + SKEW + 1), draft("new", blob="b"))) == "ok"
    run(database.fence(0))
    run(database.add_key(replace(KEY, api_key="333")))
    assert watermarks(database) == [START + 7 * 86400] * 3


def test_a_copy_without_a_key_remembers_its_fence(backend: Backend) -> None:
    database = backend.server()
    run(database.freeze())
    run(database.thaw(SKEW))
    run(database.add_key(KEY))
    assert watermarks(database) == [START + SKEW]


def test_without_a_fence_keys_work_at_once(database: Database) -> None:
    """Dated as they may be, and whatever the skew of the server that starts."""
    run(database.widen_fence(SKEW))
    run(database.add_key(OTHER))
    assert run(attempt(database, grant(key=OTHER, at=START - 600), draft(blob="b"))) == "ok"
    assert watermarks(database) == [None, None]


def test_a_start_widens_a_fence_to_its_own_skew(backend: Backend, database: Database) -> None:
    """The copy noted an older skew. What lies behind the fence stays: keys that are new since, and later uploads."""
    run(database.fence(SKEW))
    run(database.add_key(replace(KEY, api_key="444", created_at=START + 1), new=True))
    begun = replace(series(), grant=grant("begun", at=START + SKEW + 1))
    started = run(database.create_series(begun, per_key=9, in_all=9))
    later = replace(series("later", upload_id="later"), grant=grant("later", at=START + 3 * SKEW + 1))
    lasting = run(database.create_series(later, per_key=9, in_all=9))
    backend.clock.time = START + 60
    assert run(database.widen_fence(SKEW)) is None
    assert run(database.find_series(started.id)) is not None
    assert run(database.widen_fence(3 * SKEW)) == START + 3 * SKEW
    assert run(database.find_series(started.id)) is None
    assert run(database.find_series(lasting.id)) is not None
    assert watermarks(database) == [START + 3 * SKEW, None]
    for skew in (0, 2 * SKEW, 3 * SKEW):
        assert run(database.widen_fence(skew)) is None
    run(database.add_key(replace(OTHER, created_at=START + 2)))
    assert watermarks(database) == [START + 3 * SKEW, None, START + 3 * SKEW]


def test_no_blob_is_condemned_for_a_time_after_a_fence(backend: Backend, database: Database) -> None:
    """By a clock that may have stepped back since; a start that widens the fence makes none."""
    condemn = partial(database.condemn, after_fence=3600)
    assert run(condemn(["never"])) == ["never"]
    run(database.fence(SKEW))
    for later, within in ((0, True), (3000, True), (3600, False), (-3000, True), (-7200, False)):
        backend.clock.time = START + later
        assert run(condemn(["late"])) == ([] if within else ["late"])
        assert run(database.condemn(["at once"])) == ["at once"]
    backend.clock.time = START + 7200
    run(database.widen_fence(3 * SKEW))
    assert run(condemn(["later"])) == ["later"]


@pytest.mark.parametrize("ahead", [SKEW, SKEW + 1, 10**9])
def test_after_a_fence_by_a_clock_that_was_ahead_the_next_fence_counts(
    backend: Backend, database: Database, ahead: int
) -> None:
    """Of two fences no further apart than the skew, the later moment counts: the clocks may differ by so much."""
    backend.clock.time = START + ahead
    run(database.fence(SKEW))
    backend.clock.time = START
    run(database.fence(SKEW))
    assert run(database.condemn(["lost"], after_fence=SKEW + 1)) == []
    run(database.widen_fence(2 * SKEW))
    assert watermarks(database) == [START + ahead + (2 * SKEW if ahead == SKEW else SKEW)]


def test_a_fence_lowers_no_watermark_and_a_purge_lowers_no_fence(backend: Backend, database: Database) -> None:
    run(database.commit(grant("old", at=START - 100), draft(blob="old"), CALLER))
    run(database.fence(SKEW))
    backend.clock.time = START - 3600
    assert run(database.fence(SKEW)) == START - 3600 + SKEW
    backend.clock.time = START + 10**6
    assert run(database.purge(audit_seconds=10**7)) == 1
    assert watermarks(database) == [START + SKEW]


def test_an_upload_under_way_is_refused_at_its_commit(database: Database) -> None:
    """The fence is safe beside a server that runs already."""
    begun = grant("begun")
    run(database.fence(SKEW))
    with pytest.raises(StaleRequest, match=r"refuses all signatures up to that time\. Ask for a new signature\."):
        run(database.commit(begun, draft(blob="b"), CALLER))
    assert run(database.find_grant(begun.key)) is None


def test_what_was_spent_before_is_still_known_as_spent(database: Database) -> None:
    """The fence drops no row."""
    run(database.commit(grant(), draft(blob="b"), CALLER))
    run(database.fence(SKEW))
    record = run(database.find_grant(grant().key))
    assert record is not None
    assert record.uses == 1


@pytest.mark.parametrize(("noted", "counts"), [(SKEW - 1, SKEW), (SKEW + 1, SKEW + 1)])
def test_a_fence_counts_the_greater_skew_of_a_server(database: Database, noted: int, counts: int) -> None:
    """The command may run in a shell without the server's settings."""
    run(database.note_settings({"skew": "1000000"}))
    run(database.note_settings({"skew": str(noted)}))
    assert run(database.fence(SKEW)) == START + counts
    run(database.freeze())
    assert run(database.thaw(SKEW)) == START + counts


def test_a_server_notes_its_settings_also_in_a_frozen_database(backend: Backend, database: Database) -> None:
    assert run(database.noted_settings()) == {}
    run(database.freeze())
    for settings in ({"skew": "300", "cloud": "a"}, {"skew": "0", "more": "b"}, {"skew": "0", "more": "b"}):
        run(database.note_settings(settings))
        assert run(backend.server().noted_settings()) == settings
