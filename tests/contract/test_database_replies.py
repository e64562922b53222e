"""What any Database must do, run on every back end: tell a client again what its upload was answered."""

from dataclasses import replace
from hashlib import sha256

import pytest

from tests.contract.databases import CALLER, START, Backend, attempt, draft, grant, publish, relay, run, unlimited
from tests.contract.guarantees import check_repeats_agree
from tests.contract.test_database_relays import ANSWER, A, begun, code_of, whole
from uponce.app.ports import Committed, Database, Draft, Table
from uponce.core.errors import IdempotencyKeyReused, OutcomeUnknown
from uponce.core.values import Digest, Grant, GrantStatus

KEY = "the client's own name for this upload"


def keyed(blob: str, key: str | None = KEY, *, overwrite: bool = True, sha256: str = "1") -> Draft:
    """`sha256` is one digit that stands for the bytes."""
    digest = Digest(3, "0" * 32, sha256 * 64)
    return replace(draft(blob=blob, overwrite=overwrite, digest=digest), idempotency_key=key)


def uses(database: Database, subject: Grant) -> int:
    record = run(database.find_grant(subject.key))
    return record.uses if record else 0


def commit(database: Database, draft: Draft, subject: Grant | None = None) -> Committed:
    return run(database.commit(subject or grant("a"), draft, CALLER))


@pytest.mark.parametrize("subject", [grant("a"), unlimited(grant("a"))], ids=["once", "unlimited"])
def test_the_same_key_and_bytes_get_the_same_answer_and_spend_nothing(
    backend: Backend, database: Database, subject: Grant
) -> None:
    first = commit(database, keyed("first"), subject)
    assert not first.replayed
    backend.clock.time += 5
    again = commit(database, keyed("again"), subject)
    assert again == replace(first, replayed=True, unneeded_blob="again")
    assert uses(database, subject) == 1
    assert len(run(database.history(subject.key, 10))) == 1
    assert run(database.find_asset(first.asset.name)) == first.asset


def test_other_bytes_under_the_same_key_are_refused(database: Database) -> None:
    first = commit(database, keyed("first"), unlimited(grant("a")))
    with pytest.raises(IdempotencyKeyReused, match=f"other bytes than this one .SHA-256 {'2' * 64}"):
        commit(database, keyed("other", sha256="2"), unlimited(grant("a")))
    assert uses(database, grant("a")) == 1
    assert run(database.find_asset(first.asset.name)) == first.asset


@pytest.mark.parametrize("other", [None, "another key"])
def test_without_the_key_a_repeat_is_a_reuse(database: Database, other: str | None) -> None:
    commit(database, keyed("first"))
    assert run(attempt(database, grant("a"), keyed("again", other))) == "signature_used"


def test_a_use_without_a_key_stores_no_answer(database: Database) -> None:
    commit(database, keyed("first", None))
    assert run(database.find_reply(grant("a").key, KEY)) is None
    assert run(attempt(database, grant("a"), keyed("again"))) == "signature_used"


def test_a_key_belongs_to_its_grant(database: Database) -> None:
    """Two clients may choose the same one."""
    commit(database, keyed("first"))
    assert not commit(database, keyed("second", sha256="2"), grant("b")).replayed
    assert uses(database, grant("a")) == uses(database, grant("b")) == 1


def test_each_key_of_a_grant_with_several_uses_is_a_use(database: Database) -> None:
    twice = grant("a", max_uses=2)
    told = [commit(database, keyed(f"b{number}", f"key {number % 2}"), twice) for number in range(4)]
    assert [committed.replayed for committed in told] == [False, False, True, True]
    assert (told[2].asset, told[3].asset) == (told[0].asset, told[1].asset)
    assert uses(database, twice) == 2


def test_the_answer_is_what_was_answered_whatever_became_of_the_asset(database: Database) -> None:
    first = commit(database, keyed("first"))
    run(publish(database, "later"))
    again = commit(database, keyed("again"))
    assert again.asset == first.asset
    assert run(database.find_asset(first.asset.name)) != first.asset


def test_an_asset_that_was_kept_is_answered_again_for_the_bytes_that_were_sent(database: Database) -> None:
    kept = run(publish(database, "kept")).asset
    first = commit(database, keyed("first", overwrite=False, sha256="2"))
    assert (first.existing, first.asset) == (True, kept)
    again = commit(database, keyed("again", overwrite=False, sha256="2"))
    assert (again.existing, again.asset, again.replayed) == (True, kept, True)
    refused = run(attempt(database, grant("a"), keyed("again", overwrite=False)))
    assert refused == "idempotency_key_reused", "the kept asset has these bytes, the answered upload had not"


def test_an_overwrite_is_told_again_as_one(database: Database) -> None:
    run(publish(database, "old"))
    assert commit(database, keyed("first")).unneeded_blob == "blob-old"
    again = commit(database, keyed("again"))
    assert (again.overwritten, again.unneeded_blob) == (True, "again")


def test_the_stored_answer_can_be_looked_up(database: Database) -> None:
    first = commit(database, keyed("first"))
    reply = run(database.find_reply(grant("a").key, KEY))
    assert reply is not None
    assert (reply.answer, reply.sha256) == (first, "1" * 64)
    assert run(database.confirm_reply(grant("a").key, KEY)) == reply
    for find in (database.find_reply, database.confirm_reply):
        assert run(find(grant("a").key, KEY.upper())) is None
        assert run(find(grant("b").key, KEY)) is None


def test_a_revoked_grant_answers_nothing_any_more(database: Database) -> None:
    commit(database, keyed("first"), grant("a", max_uses=2))
    assert run(database.revoke_grant(grant("a", max_uses=2), CALLER)).status is GrantStatus.REVOKED
    assert run(database.find_reply(grant("a").key, KEY)) is None
    assert run(attempt(database, grant("a", max_uses=2), keyed("again"))) == "signature_revoked"


def test_a_caller_may_look_up_the_answer_of_a_revoked_grant(backend: Backend, database: Database) -> None:
    """It is forgotten with the grant, as every answer is."""
    first = commit(database, keyed("first"), grant("a", max_uses=2))
    run(database.revoke_grant(grant("a", max_uses=2), CALLER))
    reply = run(database.find_reply(grant("a").key, KEY, also_revoked=True))
    assert reply is not None
    assert reply.answer == first
    assert run(database.find_reply(grant("b").key, KEY, also_revoked=True)) is None
    backend.clock.time = grant("a").keep_until + 1
    run(database.purge(audit_seconds=10**6))
    assert run(database.find_reply(grant("a").key, KEY, also_revoked=True)) is None


def test_a_commit_that_fails_stores_no_answer(database: Database) -> None:
    run(database.condemn(["first"]))
    assert run(attempt(database, grant("a"), keyed("first"))) == "attempt_expired"
    assert run(database.find_reply(grant("a").key, KEY)) is None
    assert not commit(database, keyed("again")).replayed


def test_replies_are_forgotten_with_their_grant(backend: Backend, database: Database) -> None:
    commit(database, keyed("first"))
    later = grant("later", at=START + 50)
    commit(database, keyed("later"), later)
    backend.clock.time = grant("a").keep_until + 1
    assert run(database.purge(audit_seconds=10**6)) == 1
    assert run(database.count_rows(Table.REPLIES)) == 1  # a reply without its grant would be found by no request
    assert run(database.find_reply(grant("a").key, KEY)) is None
    assert run(database.find_reply(later.key, KEY)) is not None
    assert run(attempt(database, grant("a"), keyed("again"))) == "stale_request"


@pytest.mark.parametrize("servers", [1, 3])
@pytest.mark.parametrize("max_uses", [1, 2**62], ids=["once", "unlimited"])
def test_of_many_repeats_at_once_one_is_stored_and_all_are_told_of_it(
    backend: Backend, database: Database, servers: int, max_uses: int
) -> None:
    several = [database, *(backend.server() for _ in range(servers - 1))]
    run(check_repeats_agree(several, max_uses=max_uses))


def test_an_idempotency_key_is_passed_on_once_also_while_its_upload_is_pending(database: Database) -> None:
    """Whatever the bytes of the repeat: the first upload may still be refused, and then the key is free."""
    for often in (unlimited(A), grant("twice", max_uses=2)):
        hashed, name = sha256(b"the client's key").digest(), often.key.hex()
        made = run(begun(database, relay(often, id=f"first{name}", key_hash=hashed)))
        again = relay(often, id=f"again{name}", key_hash=hashed)
        other_bytes = replace(again, digest=replace(again.digest, sha256="2" * 64))
        assert [run(code_of(database, each)) for each in (again, other_bytes)] == [OutcomeUnknown.code] * 2
        run(database.end_relay(run(begun(database, relay(often, id=f"other{name}", key_hash=sha256().digest()))), None))
        run(database.end_relay(made, None))
        assert run(code_of(database, again)) == "ok"
    whole(database)


def test_the_answer_of_an_upstream_answers_no_upload_that_is_stored_here(database: Database) -> None:
    """The cloud had an upstream when the client sent it first. The signature stays spent."""
    passed_on = run(begun(database, relay(A, key_hash=sha256(KEY.encode()).digest())))
    assert run(database.end_relay(passed_on, ANSWER))
    assert run(attempt(database, A, keyed("again"))) == "signature_used"
