"""What any Database must do, run on every back end: a frozen one takes no write, and forgets nothing by thawing."""

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.databases import (
    CALLER,
    KEY,
    SKEW,
    START,
    Backend,
    attempt,
    draft,
    grant,
    publish,
    relay,
    run,
)
from tests.contract.test_database_relays import ACCOUNT
from uponce.app.ports import Database
from uponce.core.errors import DatabaseUnavailable

PENDING = relay(grant("pending"))
Write = Callable[[Database], Coroutine[Any, Any, Any]]
WRITES: dict[str, Write] = {
    "commit": lambda database: database.commit(grant("new"), draft(blob="b"), CALLER),
    "delete": lambda database: database.delete(grant("new"), draft(blob="blob-spent").asset.name, CALLER),
    "revoke": lambda database: database.revoke_grant(grant("new"), CALLER),
    "refusal": lambda database: database.record_refusal(grant("spent"), "signature_used", CALLER),
    "add_key": lambda database: database.add_key(replace(KEY, api_key="333")),
    "revoke_key": lambda database: database.revoke_key(KEY.api_key),
    "fence": lambda database: database.fence(SKEW),
    "condemn": lambda database: database.condemn(["ab" * 16]),
    "begin_relay": lambda database: database.begin_relay(relay(grant("new")), 0),
    "end_relay": lambda database: database.end_relay(PENDING, None),
    "note_misses": lambda database: database.note_misses(PENDING.id, 1),
    "claim_effects": lambda database: database.claim_effects("relay", {"demo": 9}, 60),
    "retry_effects": lambda database: database.retry_effects(1),
    "set_upstream": lambda database: database.set_upstream("demo", ACCOUNT),
    "forget_upstream": lambda database: database.set_upstream("demo", None),
    "ping": lambda database: database.ping(),
}


def is_up(database: Database) -> bool:
    """Whether a write goes through, or fails because the database is frozen."""
    try:
        run(database.record_refusal(grant("asked"), "signature_used", CALLER))
    except DatabaseUnavailable:
        return False
    return True


@pytest.mark.parametrize("name", sorted(WRITES))
def test_a_frozen_database_takes_no_write_from_any_server(backend: Backend, database: Database, name: str) -> None:
    """Also from one that was connected before; what can be read stays as it was."""
    early = backend.server()
    run(publish(database, "spent"))
    run(database.set_upstream("demo", ACCOUNT))
    pending = run(database.begin_relay(PENDING, 60))
    backend.clock.time += 1000
    assert is_up(early)
    run(database.freeze())
    run(database.freeze())
    for server in (early, database, backend.server()):
        assert run(server.frozen())
        with pytest.raises(DatabaseUnavailable) as refused:
            run(WRITES[name](server))
        assert "frozen" in refused.value.for_operator
    assert run(early.find_grant(grant("new").key)) is None
    found = run(early.find_grant(grant("spent").key))
    assert found is not None and found.uses == 1
    assert run(early.find_relay(PENDING.id)) == pending
    assert [key.watermark for key in run(early.list_keys())] == [None]


def test_purging_a_frozen_database_forgets_nothing(backend: Backend, database: Database) -> None:
    run(publish(database, "spent"))
    run(database.freeze())
    backend.clock.time = START + 10**6
    with pytest.raises(DatabaseUnavailable):
        run(database.purge(audit_seconds=0))
    assert run(database.find_grant(grant("spent").key)) is not None
    assert len(run(database.history(grant("spent").key, 9))) == 1


def test_thawing_fences(database: Database) -> None:
    """This database does not know which signatures were used on its copy."""
    run(publish(database, "spent"))
    run(database.freeze())
    assert run(database.thaw(SKEW)) == START + SKEW
    assert not run(database.frozen())
    assert run(attempt(database, grant("used elsewhere"), draft(blob="b"))) == "stale_request"
    assert run(attempt(database, grant("new", at=START + SKEW + 1), draft(blob="b"))) == "ok"
    run(database.ping())
