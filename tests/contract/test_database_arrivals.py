"""What any Database must do with uploads that take their steps in groups: the same guarantees as for single commits."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.contract.databases import CALLER, KEY, START, Backend, attempt, draft, grant, publish, run, unlimited
from tests.contract.grouped import MOST_REFUSALS, Grouped, Sent, ready
from tests.contract.guarantees import check_one_winner, check_purge_forgets_nothing_usable, check_repeats_agree
from tests.contract.test_database_relays import ACCOUNT
from uponce.app.ports import Database, Records
from uponce.core.errors import BlobCondemned, FileTooLarge, SignatureRevoked, SignatureUsed, UnknownApiKey, UponceError
from uponce.core.values import AuditEvent


@pytest.fixture
def grouped(database: Database) -> Any:
    return Grouped(database)


def test_it_spends_the_grant_and_publishes_the_asset(grouped: Any) -> None:
    committed = run(publish(grouped, "a"))
    assert run(grouped.find_commit("blob-a")) == committed.asset
    assert run(grouped.find_grant(grant("a").key)).spent_at == START


@pytest.mark.parametrize("max_uses", [1, 3])
def test_of_many_racers_exactly_max_uses_win(grouped: Any, max_uses: int) -> None:
    run(check_one_winner([grouped], max_uses=max_uses, racers=100))


def test_of_racers_on_two_servers_and_two_ways_one_wins(backend: Backend, grouped: Any, database: Database) -> None:
    run(check_one_winner([grouped, database, Grouped(backend.server())], racers=60))


def test_repeats_under_one_idempotency_key_agree(grouped: Any) -> None:
    run(check_repeats_agree([grouped]))
    late = replace(draft(blob="late"), idempotency_key="key")
    assert run(grouped.commit(grant("repeated"), late, CALLER)).replayed


def test_a_purge_forgets_nothing_usable(grouped: Any, backend: Backend) -> None:
    run(check_purge_forgets_nothing_usable(grouped, backend.clock))


@pytest.mark.parametrize(("careless", "told"), [(False, ["ok", "signature_used"]), (True, ["ok", "ok"])])
def test_what_two_servers_saw_before_the_commit_decides_nothing(
    backend: Backend, database: Database, careless: bool, told: list[str]
) -> None:
    """Both look before either commits. Servers that trust what they saw, and insert, spend it twice."""
    both_looked = threading.Barrier(2)

    def looking(arrivals: Sequence[Sent], records: Records) -> Sequence[Any]:
        made = ready(arrivals, records)
        both_looked.wait(60)
        return [replace(each, grant=unlimited(each.grant)) for each in made] if careless else made  # type: ignore[union-attr, type-var]

    async def one(server: Database, blob: str) -> str:
        try:
            await server.commit_arrival(Sent(grant("a"), draft(blob, blob=blob), CALLER), looking, MOST_REFUSALS)
        except UponceError as error:
            return error.code
        return "ok"

    async def both() -> tuple[str, str]:
        return await asyncio.gather(one(database, "one"), one(backend.server(), "two"))

    assert sorted(run(both())) == told


def test_each_upload_of_a_group_succeeds_or_fails_by_itself(grouped: Any, database: Database) -> None:
    """Spent, revoked, condemned, of an unknown key, refused by its steps: the others of the group are stored."""
    run(publish(database, "spent"))
    run(database.revoke_grant(grant("revoked"), CALLER))
    run(database.condemn(["condemned"]))
    stranger = replace(KEY, api_key="999")
    uploads = {
        "good": Sent(grant("good"), draft("good", blob="good"), CALLER),
        "spent": Sent(grant("spent"), draft("spent", blob="spent"), CALLER),
        "revoked": Sent(grant("revoked"), draft("revoked", blob="revoked"), CALLER),
        "condemned": Sent(grant("condemned"), draft("condemned", blob="condemned"), CALLER),
        "stranger": Sent(grant("stranger", key=stranger), draft("stranger", blob="stranger"), CALLER),
        "refused": Sent(
            grant("refused"), draft("refused", blob="refused"), CALLER, lambda _: FileTooLarge("too large")
        ),
        "last": Sent(grant("last"), draft("last", blob="last"), CALLER),
    }

    async def all_at_once() -> list[Any]:
        work = (database.commit_arrival(each, ready, MOST_REFUSALS) for each in uploads.values())
        return await asyncio.gather(*work, return_exceptions=True)

    told = dict(zip(uploads, run(_gather(all_at_once)), strict=True))
    kinds = {name: type(answer) for name, answer in told.items() if isinstance(answer, UponceError)}
    assert kinds == {
        "spent": SignatureUsed,
        "revoked": SignatureRevoked,
        "condemned": BlobCondemned,
        "stranger": UnknownApiKey,
        "refused": FileTooLarge,
    }
    stored = {name for name in uploads if run(database.find_commit(name)) is not None}
    assert stored == {"good", "last"}
    assert run(attempt(grouped, grant("condemned"), draft(blob="another"))) == "ok"


async def _gather(work: Callable[[], Any]) -> Any:
    return await work()


def test_a_refused_reuse_is_in_the_audit_before_it_is_answered(grouped: Any) -> None:
    run(publish(grouped, "a"))
    for _ in range(3):
        assert run(attempt(grouped, grant("a"), draft(blob="again"))) == "signature_used"
    events = [(line.event, line.code) for line in run(grouped.history(grant("a").key, 100))]
    assert events == [(AuditEvent.SPENT, ""), *[(AuditEvent.REFUSED, "signature_used")] * 3]


def test_losers_of_a_race_are_in_the_audit(grouped: Any) -> None:
    run(check_one_winner([grouped], racers=MOST_REFUSALS))
    lines = run(grouped.history(grant("contested").key, 100))
    assert sorted(line.event for line in lines) == [AuditEvent.REFUSED] * (MOST_REFUSALS - 1) + [AuditEvent.SPENT]


def test_refusals_beyond_the_limit_are_counted(grouped: Any) -> None:
    run(publish(grouped, "a"))
    for _ in range(MOST_REFUSALS + 5):
        run(attempt(grouped, grant("a"), draft(blob="again")))
    refused = [line for line in run(grouped.history(grant("a").key, 100)) if line.event is AuditEvent.REFUSED]
    assert (len(refused), sum(line.count for line in refused)) == (MOST_REFUSALS + 1, MOST_REFUSALS + 5)


def test_the_steps_read_keys_as_they_are_now(grouped: Any, database: Database, backend: Backend) -> None:
    """A key that another server revokes or rotates is read again; so is one of this server."""
    seen: list[Any] = []

    def look(records: Records) -> None:
        key = records.find_key(KEY.api_key)
        seen.append(key and (key.secrets, key.revoked_at))

    async def upload(name: str) -> None:
        sent = Sent(unlimited(grant(name)), draft(name, blob=name), CALLER, look)
        await asyncio.gather(database.commit_arrival(sent, ready, MOST_REFUSALS), return_exceptions=True)

    run(upload("one"))
    run(database.rotate_key(KEY.api_key, "second", 0))
    run(upload("two"))
    run(backend.server().rotate_key(KEY.api_key, "third", 0))
    run(upload("three"))
    run(backend.server().revoke_key(KEY.api_key))
    run(upload("four"))
    assert seen == [(("the-secret",), None), (("second",), None), (("third",), None), (("third",), START)]


def test_the_steps_read_the_upstream_as_it_is_now(database: Database, backend: Backend) -> None:
    """One that this server or another one sets or forgets is read again."""
    seen: list[Any] = []

    def look(records: Records) -> None:
        key = records.find_key(KEY.api_key)
        seen.append(key and key.upstream)

    async def upload(name: str) -> None:
        sent = Sent(grant(name), draft(name, blob=name), CALLER, look)
        await database.commit_arrival(sent, ready, MOST_REFUSALS)

    run(upload("one"))
    run(database.set_upstream("demo", ACCOUNT))
    run(upload("two"))
    run(backend.server().set_upstream("demo", replace(ACCOUNT, secret="another")))
    run(upload("three"))
    run(database.set_upstream("demo", None))
    run(upload("four"))
    assert seen == [None, ACCOUNT, replace(ACCOUNT, secret="another"), None]


def test_a_secret_that_runs_out_is_not_remembered(database: Database, backend: Backend) -> None:
    seen: list[tuple[str, ...]] = []

    def look(records: Records) -> None:
        key = records.find_key(KEY.api_key)
        assert key is not None
        seen.append(key.secrets)

    async def upload(name: str) -> None:
        sent = Sent(unlimited(grant(name)), draft(name, blob=name), CALLER, look)
        await database.commit_arrival(sent, ready, MOST_REFUSALS)

    run(database.rotate_key(KEY.api_key, "second", 60))
    run(upload("one"))
    backend.clock.time += 61
    run(upload("two"))
    assert seen == [("second", "the-secret"), ("second",)]


def test_steps_that_fail_end_their_group_and_nothing_else(grouped: Any, database: Database) -> None:
    def broken(records: Records) -> None:
        raise RuntimeError("a defect")

    async def both() -> Any:
        bad = database.commit_arrival(Sent(grant("a"), draft(blob="a"), CALLER, broken), ready, MOST_REFUSALS)
        return await asyncio.gather(bad, publish(database, "b"), return_exceptions=True)

    failed, stored = run(both())
    assert isinstance(failed, UponceError)
    assert run(database.find_commit("blob-b")) == stored.asset
    assert run(attempt(grouped, grant("a"), draft(blob="c"))) == "ok"


def test_a_cloud_is_known_where_a_key_is_not(database: Database) -> None:
    seen: list[tuple[Any, bool, bool]] = []

    def look(records: Records) -> UponceError:
        seen.append((records.find_key("999"), records.has_cloud("demo"), records.has_cloud("nowhere")))
        return UnknownApiKey("unknown")

    stranger = replace(KEY, api_key="999")
    sent = Sent(grant("a", key=stranger), draft(blob="a"), CALLER, look)
    with pytest.raises(UnknownApiKey):
        run(database.commit_arrival(sent, ready, MOST_REFUSALS))
    assert seen == [(None, True, False)]


def test_the_steps_read_the_answer_under_an_idempotency_key(database: Database) -> None:
    seen: list[Any] = []

    def look(records: Records) -> UponceError:
        asked = [("a", "key"), ("a", "another"), ("b", "key"), ("revoked", "key")]
        seen.extend(records.find_reply(grant(name).key, key) for name, key in asked)
        return SignatureUsed("looked")

    for name, subject in {"a": grant("a"), "revoked": grant("revoked", max_uses=2)}.items():
        run(database.commit(subject, replace(draft(name, blob=name), idempotency_key="key"), CALLER))
    run(database.revoke_grant(grant("revoked", max_uses=2), CALLER))
    with pytest.raises(SignatureUsed):
        run(database.commit_arrival(Sent(grant("c"), draft(blob="c"), CALLER, look), ready, MOST_REFUSALS))
    assert seen == [run(database.find_reply(grant("a").key, "key")), None, None, None]
    assert seen[0].answer.asset.blob_key == "a"


class Counting:
    """A session that counts how often it waits for the database."""

    def __init__(self, session: Any) -> None:
        self.statements = session.statements
        self.waits = 0
        self._session = session

    def ask(self, asks: Sequence[Any]) -> Any:
        self.waits += bool(asks)
        return self._session.ask(asks)


def test_strangers_keep_no_group_waiting(database: Database) -> None:
    """What a group names is read together: keys that exist or not, of other clouds, and revoked ones."""
    run(database.add_key(replace(KEY, api_key="revoked")))
    run(database.revoke_key("revoked"))
    named = [(str(number), f"cloud-{number}") for number in range(64)]
    named += [(KEY.api_key, "demo"), (KEY.api_key, "elsewhere"), ("revoked", "demo")]
    found: list[Any] = []

    def look(records: Any) -> None:
        records._session = counting = Counting(records._session)
        records.load(named)
        found.append([(records.find_key(name), records.has_cloud(cloud)) for name, cloud in named])
        found.append(counting.waits)

    run(database.commit_arrival(Sent(grant("a"), draft(blob="a"), CALLER, look), ready, MOST_REFUSALS))
    (answers, waits) = found
    assert waits <= 3
    assert answers[:64] == [(None, False)] * 64
    assert [(key.api_key, known) for key, known in answers[64:]] == [
        (KEY.api_key, True),
        (KEY.api_key, False),
        ("revoked", True),
    ]
