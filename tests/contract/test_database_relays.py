"""What any Database must do, run on every back end: uploads that are pending in an upstream, and the outbox."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from tests.contract.databases import (
    CALLER,
    KEY,
    MAX_UPLOAD,
    SKEW,
    START,
    WINDOW,
    Backend,
    PlainBox,
    attempt,
    claim,
    draft,
    grant,
    relay,
    run,
    unlimited,
)
from tests.contract.test_database_series import complete
from uponce.app.ports import Database, Rule, Waiting
from uponce.core.errors import (
    IdempotencyKeyReused,
    OutcomeUnknown,
    SeriesGone,
    SettingRefused,
    SignatureRevoked,
    SignatureUsed,
    StaleRequest,
    UnknownApiKey,
    UponceError,
)
from uponce.core.relaying import Forwarded, Relay
from uponce.core.values import Algorithm, AuditEvent, Grant, GrantStatus, Upstream

A, B = grant("a"), grant("b")
ANSWER = Forwarded(200, '{"public_id":"cät"}', "the-asset", "cät", (("X-FeatureRateLimit-Limit", "500"),), 3)
ACCOUNT = Upstream("acme", "999", "the-upstream's-secret", "http://127.0.0.1:9", Algorithm.SHA256, 600)


async def begun(database: Database, new: Relay, seconds: int = 60) -> Relay:
    made = await database.begin_relay(new, seconds)
    assert isinstance(made, Relay)
    return made


async def code_of(database: Database, new: Relay) -> str:
    """`ok`, or the code of the refusal."""
    try:
        await database.begin_relay(new, 60)
    except UponceError as error:
        return error.code
    return "ok"


def whole(database: Database) -> None:
    """No rule of the ledger is broken."""
    assert {rule: run(database.violations(rule, 90 * 86400, 10)) for rule in Rule if rule is not Rule.PURGED} == {
        rule: [] for rule in Rule if rule is not Rule.PURGED
    }


def test_a_pending_relay_comes_back_as_it_was_begun(backend: Backend, database: Database) -> None:
    new = replace(relay(A, key_hash=sha256(b"key").digest()), bound=1202)
    made = run(begun(database, new))
    assert made == replace(new, pending_at=START)
    for server in (database, backend.server()):
        assert run(server.find_relay(new.id)) == made
        record = run(server.find_grant(A.key))
        assert record is not None
        assert (record.status, record.uses, record.pending, record.spent_at) == (GrantStatus.PENDING, 1, 1, None)
    assert run(database.find_relay("another")) is None
    whole(database)


def test_a_pending_relay_has_its_grants_in_the_order_of_their_keys(database: Database) -> None:
    several = sorted(map(grant, "abcde"), key=lambda each: each.key)
    made = run(begun(database, relay(*reversed(several), id="one")))
    run(begun(database, relay(grant("another"), id="two")))
    assert run(database.find_relay("one")) == replace(made, grants=tuple(several))


def test_the_moment_is_the_one_by_which_uploads_are_pending(database: Database) -> None:
    assert run(database.moment()) == run(begun(database, relay(A))).pending_at


def test_while_it_is_pending_no_other_attempt_gets_through_and_none_leaves_a_trace(database: Database) -> None:
    run(begun(database, relay(A)))
    tries: list[Coroutine[Any, Any, object]] = [
        database.begin_relay(relay(A, id="second"), 60),
        database.commit(A, draft(blob="b" * 32), CALLER),
        database.delete(A, draft(blob="b").asset.name, CALLER),
    ]
    for each in tries:
        with pytest.raises(OutcomeUnknown) as refusal:
            run(each)
        assert refusal.value.retry_after
    assert run(database.history(A.key, 10)) == []
    assert run(database.find_relay("second")) is None
    assert [effect.subject for effect in run(database.list_effects(10))] == [relay(A).id]
    whole(database)


def test_of_many_attempts_one_is_passed_on(backend: Backend) -> None:
    servers = [backend.server(), backend.server()]
    run(servers[0].add_key(KEY))

    async def race(contested: Grant) -> list[str]:
        attempts = [relay(contested, id=f"{contested.key.hex()}{number}") for number in range(8)]
        drafts = [draft(blob=f"{contested.key.hex()}{number}") for number in range(2)]
        return await asyncio.gather(
            *(code_of(servers[number % 2], each) for number, each in enumerate(attempts)),
            *(attempt(server, contested, each) for server, each in zip(servers, drafts, strict=True)),
        )

    for number in range(10):
        outcomes = run(race(grant(f"contested {number}")))
        assert outcomes.count("ok") == 1, outcomes
        assert set(outcomes) <= {"ok", "outcome_unknown", "signature_used"}


def test_a_success_spends_it(database: Database) -> None:
    made = run(begun(database, relay(A)))
    assert run(database.end_relay(made, ANSWER, "existing")) is True
    record = run(database.find_grant(A.key))
    assert record is not None
    assert (record.status, record.uses, record.pending, record.spent_at) == (GrantStatus.USED, 1, 0, START)
    (line,) = run(database.history(A.key, 10))
    assert (line.event, line.code, line.asset_id, line.public_id) == (AuditEvent.SPENT, "existing", "the-asset", "cät")
    assert line.caller == CALLER
    with pytest.raises(SignatureUsed):
        run(database.begin_relay(relay(A, id="second"), 60))
    assert (run(database.find_relay(made.id)), run(database.list_effects(10))) == (None, [])
    whole(database)


def test_a_refusal_gives_the_use_back(database: Database) -> None:
    made = run(begun(database, relay(A)))
    assert run(database.end_relay(made, None)) is True
    assert run(database.find_grant(A.key)) is None
    assert run(database.history(A.key, 10)) == []
    assert run(database.list_effects(10)) == []
    assert run(attempt(database, A, draft(blob="b" * 32))) == "ok"
    whole(database)


def test_only_the_owner_of_the_row_writes_its_outcome(database: Database) -> None:
    late = run(begun(database, relay(A)))
    run(database.end_relay(late, None))
    second = run(begun(database, relay(A, id="second")))
    assert run(database.end_relay(late, ANSWER)) is False
    assert run(database.end_relay(late, None)) is False
    assert run(database.find_relay(second.id)) == second
    assert run(database.end_relay(second, ANSWER)) is True
    assert run(database.end_relay(second, ANSWER)) is False
    assert len(run(database.history(A.key, 10))) == 1
    whole(database)


def test_a_repeat_gets_the_stored_answer_and_other_bytes_do_not(database: Database) -> None:
    hashed = sha256(b"the client's key").digest()
    run(database.end_relay(run(begun(database, relay(A, key_hash=hashed))), ANSWER))
    again = relay(A, id="again", key_hash=hashed)
    assert run(database.begin_relay(again, 60)) == replace(ANSWER, replayed=True)
    reply = run(database.find_reply(A.key, "the client's key"))
    assert reply is not None and reply.answer == ANSWER
    with pytest.raises(IdempotencyKeyReused):
        run(database.begin_relay(replace(again, digest=replace(again.digest, sha256="2" * 64)), 60))
    with pytest.raises(SignatureUsed):
        run(database.begin_relay(relay(A, id="another", key_hash=sha256(b"another").digest()), 60))
    assert run(database.find_relay("again")) is None


def test_what_is_used_revoked_stale_or_unknown_is_not_passed_on(database: Database) -> None:
    run(attempt(database, A, draft(blob="b" * 32)))
    run(database.revoke_grant(B, CALLER))
    assert run(code_of(database, relay(A))) == SignatureUsed.code
    assert run(code_of(database, relay(B))) == SignatureRevoked.code
    assert run(code_of(database, relay(replace(grant("c"), api_key="222")))) == UnknownApiKey.code
    run(database.fence(SKEW))
    assert run(code_of(database, relay(grant("d")))) == StaleRequest.code
    assert run(database.list_effects(10)) == []


def test_a_grant_with_several_uses_counts_each(database: Database) -> None:
    twice = grant("twice", max_uses=2)
    first, second = (run(begun(database, relay(twice, id=name))) for name in ("first", "second"))
    assert run(code_of(database, relay(twice, id="third"))) == OutcomeUnknown.code
    run(database.end_relay(first, None))
    assert run(code_of(database, relay(twice, id="third"))) == "ok"
    run(database.end_relay(second, ANSWER))
    record = run(database.find_grant(twice.key))
    assert record is not None and (record.uses, record.pending) == (2, 1)
    whole(database)


def test_an_unlimited_grant_is_passed_on_any_number_of_times(database: Database) -> None:
    often = unlimited(A)
    for number in range(3):
        run(database.end_relay(run(begun(database, relay(often, id=f"{number}"))), ANSWER))
    record = run(database.find_grant(A.key))
    assert record is not None and (record.uses, record.pending, record.status) == (3, 0, GrantStatus.UNUSED)


def test_a_revocation_counts_once_the_pending_upload_is_free(database: Database) -> None:
    made = run(begun(database, relay(A)))
    assert run(database.revoke_grant(A, CALLER)).revoked_at == START
    run(database.end_relay(made, None))
    assert run(code_of(database, relay(A, id="second"))) == SignatureRevoked.code
    whole(database)


def test_all_grants_of_a_series_are_taken_together_and_it_ends(database: Database) -> None:
    async def play() -> None:
        done = await complete(database, A, B)
        made = await begun(database, relay(A, B, series=done.id))
        assert {each.key for each in made.grants} == {A.key, B.key}
        assert await database.find_series(done.id) is None
        with pytest.raises(SeriesGone):
            await database.begin_relay(relay(A, B, id="second", series=done.id), 60)
        for each in (A, B):
            assert await code_of(database, relay(each, id="other")) == OutcomeUnknown.code
        assert await database.end_relay(made, ANSWER)
        for each in (A, B):
            assert await code_of(database, relay(each, id="other")) == SignatureUsed.code

    run(play())
    whole(database)


def test_a_series_with_a_used_grant_takes_none(database: Database) -> None:
    async def play() -> None:
        done = await complete(database, A, B)
        assert await attempt(database, B, draft(blob="b" * 32)) == "ok"
        assert await code_of(database, relay(A, B, series=done.id)) == SignatureUsed.code
        assert await database.find_series(done.id) is not None
        assert await code_of(database, relay(A)) == "ok"

    run(play())
    whole(database)


def test_a_purge_spares_pending_grants_and_the_outcome_still_counts(backend: Backend, database: Database) -> None:
    made = run(begun(database, relay(A)))
    run(attempt(database, B, draft(blob="b" * 32)))
    backend.clock.time += WINDOW + SKEW + MAX_UPLOAD + 7200
    assert run(database.purge(90 * 86400)) == 1
    assert run(database.find_relay(made.id)) == made
    assert run(database.end_relay(made, ANSWER)) is True
    record = run(database.find_grant(A.key))
    assert record is not None and record.status is GrantStatus.USED


def test_misses_are_remembered(database: Database) -> None:
    made = run(begun(database, relay(A)))
    run(database.note_misses(made.id, 1))
    assert run(database.find_relay(made.id)) == replace(made, misses=1)


def test_a_name_hastens_the_pending_uploads_of_its_cloud(backend: Backend, database: Database) -> None:
    mine, marked = relay(A), relay(B, id="m")
    mine = replace(mine, target=replace(mine.target, fields={}, names=(("image", "cät"), ("raw", "cät.jpg"))))
    marked = replace(marked, target=replace(marked.target, fields={}, names=(), marker="0123456789abcdefghij"))
    for each in (mine, marked):
        run(begun(database, each, seconds=180))

    def hastened(cloud: str, *names: str) -> list[str]:
        run(database.hasten_relays(cloud, names, 5))
        return sorted(each.subject for each in run(database.list_effects(10)) if each.due_at == START + 5)

    for names in ((), ("dog",), ("cät.jp",), ('"cät',), ("CÄT",)):
        assert hastened("demo", *names) == []
    assert hastened("elsewhere", "cät") == []
    assert hastened("demo", "cät") == [mine.id]
    assert hastened("demo", "dog", "0123456789abcdefghij") == sorted([mine.id, marked.id])
    assert run(claim(database, "relay", 10, 120)) == []
    backend.clock.time += 5
    assert len(run(claim(database, "relay", 10, 120))) == 2


@pytest.mark.parametrize("cloud", ["demo", "elsewhere"])
def test_an_account_that_is_set_again_revives_the_look_ups_of_its_cloud(database: Database, cloud: str) -> None:
    run(begun(database, relay(A), seconds=300))
    run(begun(database, relay(B, id="b"), seconds=0))
    (effect,) = run(claim(database, "relay", 10, 120))
    run(database.postpone_effect(effect, 0, "given up", dead=True))
    run(database.set_upstream(cloud, ACCOUNT))
    # As from the beginning: a look-up that has used up its tries would die again after the next one.
    claimed = run(claim(database, "relay", 10, 120))
    assert [each.tries for each in claimed] == ([1, 1] if cloud == "demo" else [])


def test_what_waits_is_counted(database: Database) -> None:
    assert run(database.count_waiting()) == Waiting(0, 0, 0)
    made = run(begun(database, relay(A), seconds=0))
    run(begun(database, relay(B, id="b"), seconds=0))
    effect, _ = run(claim(database, "relay", 10, 120))
    run(database.postpone_effect(effect, 0, "given up", dead=True))
    assert run(database.count_waiting()) == Waiting(2, 1, 1)
    run(database.end_relay(made, ANSWER))
    assert run(database.count_waiting()).pending == 1


def test_an_upstream_whose_secret_cannot_be_read_is_named_and_can_be_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: PlainBox, cipher: bytes, context: str) -> str:
        if context == "demo/upstream":
            raise SettingRefused("lost")
        return decrypt(_, cipher, context)

    decrypt = PlainBox.decrypt
    for cloud in ("demo", "readable"):
        run(database.set_upstream(cloud, ACCOUNT))
    run(database.rotate_key("111", "the-next-secret", 60))
    monkeypatch.setattr(PlainBox, "decrypt", refuse)
    assert run(database.unreadable_keys()) == {"111": "lost"}
    assert [run(database.list_upstreams(name)) for name in ("readable", "none")] == [{"readable": ACCOUNT}, {}]
    for look in (database.find_key("111"), database.list_upstreams(), database.list_upstreams("demo")):
        with pytest.raises(SettingRefused):
            run(look)
    lost = {"demo": replace(ACCOUNT, secret="")}
    assert (run(database.lost_upstreams()), run(database.has_cloud("demo"))) == (lost, True)
    run(database.set_upstream("demo", replace(ACCOUNT, secret="new")))
    run(database.set_upstream("demo", None))
    assert (run(database.unreadable_keys()), run(database.lost_upstreams())) == ({}, {})


def test_an_upstream_without_a_secret_can_be_stored_and_a_cloud_may_have_nothing_else(database: Database) -> None:
    lost = replace(ACCOUNT, secret="")
    run(database.set_upstream("alone", lost))
    assert run(database.list_upstreams()) == {"alone": lost}
    assert [run(database.has_cloud(name)) for name in ("alone", "demo", "none")] == [True, True, False]
    assert run(database.key_clouds()) == ["demo"]


def test_an_upstream_belongs_to_all_keys_of_its_cloud(backend: Backend, database: Database) -> None:
    run(database.add_key(replace(KEY, api_key="333", cloud="another", secrets=("a third one",))))
    run(database.set_upstream("demo", ACCOUNT))
    for server in (database, backend.server()):
        found = {key.api_key: key.upstream for key in run(server.list_keys())}
        assert found == {"111": ACCOUNT, "333": None}
        key = run(server.find_key("111"))
        assert key is not None and key.upstream == ACCOUNT
        assert run(server.list_upstreams()) == {"demo": ACCOUNT}
    changed = replace(ACCOUNT, secret="a new secret", marked=True)
    run(database.set_upstream("demo", changed))
    assert run(database.list_upstreams()) == {"demo": changed}
    run(database.set_upstream("demo", None))
    assert [key.upstream for key in run(database.list_keys("demo"))] == [None]
