"""A relay whose database fails at the worst moment: no grant stays pending in vain, and no answer gets lost."""

import asyncio
from typing import Any

import pytest

from tests.upstreams import StubUpstream
from tests.web.relays import md5
from tests.web.test_relay import SIZES, reconcile, status_of, stored
from tests.world import World, assert_accepted, assert_refused
from uponce.core.errors import OutcomeUnknown
from uponce.core.relaying import Relay
from uponce.core.values import GrantStatus


@pytest.mark.parametrize("late", [False, True], ids=["committed", "committed late"])
@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_a_commit_without_a_reply_leaves_no_grant_pending_since_no_signature_was_made(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch, file: bytes, late: bool
) -> None:
    begin, begun = relay.database.begin_relay, list[Any]()

    async def begin_without_reply(new: Relay, seconds: int) -> Any:
        begun.append(begin(new, seconds))
        if not late:
            await begun.pop()
        raise OutcomeUnknown("The database did not confirm the commit.")

    monkeypatch.setattr(relay.database, "begin_relay", begin_without_reply)
    fields = relay.sign()
    refused = relay.upload(fields, file, kind="raw")
    monkeypatch.undo()
    assert not stub.store
    if late:
        assert_refused(refused, 503, "outcome_unknown")
        asyncio.run(begun.pop())
        while status_of(relay, fields) is GrantStatus.PENDING:
            reconcile(relay, after=60)
    else:
        assert_refused(refused, 503, "database_unavailable")
    assert_accepted(relay.upload(fields, file, kind="raw"))
    assert stored(stub) == [md5(file)]
