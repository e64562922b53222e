"""A relay whose database fails at the worst moment: no grant stays pending in vain, and no answer gets lost."""

import asyncio
from typing import Any

import pytest

from tests.upstreams import StubUpstream, Trouble
from tests.web.relays import md5
from tests.web.test_relay import SIZES, chunk, reconcile, status_of, stored
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.app.relaying import relay as relaying
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown
from uponce.core.policy import Limits
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


class Failing:
    """A call of the database that fails so many times, and then works. The last failure is a commit without a reply."""

    def __init__(self, relay: World, monkeypatch: pytest.MonkeyPatch, name: str, times: int) -> None:
        self.works, self.left = getattr(relay.database, name), times
        monkeypatch.setattr(relay.database, name, self)
        monkeypatch.setattr(relaying, "_PAUSE_SECONDS", 0)

    async def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left > 0:
            raise DatabaseUnavailable("The database does not answer.")
        result = await self.works(*arguments)
        if self.left == 0:
            raise OutcomeUnknown("The database did not confirm the commit.")
        return result


def test_an_answer_is_written_when_the_database_is_back(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Failing(relay, monkeypatch, "end_relay", 3)
    fields = relay.sign()
    assert assert_accepted(relay.upload(fields, kind="raw")).json["etag"] == md5(PNG)
    assert ending.left == -1
    assert status_of(relay, fields) is GrantStatus.USED
    assert relay.sql("SELECT count(*) FROM relays") == 0


def test_a_refusal_is_written_when_the_database_is_back(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    Failing(relay, monkeypatch, "end_relay", 3)
    fields, stub.uploads = relay.sign(), iter([Trouble.REFUSED])
    assert relay.upload(fields, kind="raw").status == 400
    assert status_of(relay, fields) is GrantStatus.UNUSED


def test_an_answer_that_the_database_never_took_is_looked_up_at_once(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "_PATIENCE_SECONDS", -1)
    Failing(relay, monkeypatch, "end_relay", 1000)
    fields = relay.sign()
    refused = relay.upload(fields, kind="raw")
    assert_refused(refused, 503, "outcome_unknown")
    assert "the upstream accepted the upload" in refused.json["error"]["message"].lower()
    monkeypatch.undo()
    assert reconcile(relay) == 1
    assert status_of(relay, fields) is GrantStatus.USED


def test_an_answer_to_chunks_gets_through_though_their_bytes_cannot_be_deleted_yet(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay.swap(limits=Limits(max_failed_credentials=10**6))
    find = relay.database.find_series

    async def find_before(series_id: str) -> Any:
        if stub.store:
            raise DatabaseUnavailable("The database does not answer.")
        return await find(series_id)

    file, fields, half = b"0123456789abcdef" * 400_000, relay.sign(), 5 * 1024 * 1024
    chunk(relay, fields, file, 0, half)
    monkeypatch.setattr(relay.database, "find_series", find_before)
    assert_accepted(chunk(relay, fields, file, half, len(file)))
    assert stored(stub) == [md5(file)]
