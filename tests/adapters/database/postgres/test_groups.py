"""A group of operations on PostgreSQL ends as the same operations do on SQLite, where each comes after the other."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proof.faults.statements import changed
from tests.contract.databases import (
    CALLER,
    KEY,
    Opened,
    SteppedClock,
    attempt,
    draft,
    grant,
    open_postgres,
    open_sqlite,
    relay,
    run,
)
from tests.contract.test_database_relays import ANSWER
from tests.postgres import shared
from uponce.adapters.database import commits, ledger, relays, upkeep
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.statements import load
from uponce.adapters.database.steps import Operation, Rules, Steps, operation
from uponce.app.ports import Table
from uponce.core.errors import NotFound, UponceError
from uponce.core.relaying import Relay
from uponce.core.values import Digest

SEEDS = (1, 2, 3)
_UNORDERED = {"id"}  # two engines number rows in different orders


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def database(clock: SteppedClock) -> Iterator[PostgresDatabase]:
    database = open_postgres(shared().fresh_schema(), clock)
    run(database.add_key(KEY))
    yield database
    database.close()


@pytest.fixture
def other(clock: SteppedClock, tmp_path: Path) -> Iterator[Opened]:
    database = open_sqlite(tmp_path / "uponce.db", clock)
    run(database.add_key(KEY))
    yield database
    database.close()


def as_one_group(database: Opened, operations: Sequence[Operation[Any]]) -> list[object]:
    """What each comes to, in one transaction."""
    outcomes = database._committer._engine.transact(operations, lambda: ())
    return [(each.code, each.message) if isinstance(each, UponceError) else each for each in outcomes]


def some(rng: random.Random, label: str, _: list[Relay]) -> Operation[Any]:
    """Uploads, deletions, revocations and refusals that meet in a few grants and names."""
    subject = grant(f"g{rng.randrange(14)}", max_uses=rng.choice((1, 2, 3)))
    name = f"n{rng.randrange(5)}" if rng.random() < 0.7 else f"own\0{label}"
    blob = "condemned" if rng.random() < 0.05 else label
    upload = replace(
        draft(name, blob=blob, overwrite=rng.random() < 0.6, tags=("\0", "\ufdd0")),
        idempotency_key=rng.choice((None, None, "k1", "k2")),
    )
    match rng.randrange(10):
        case 0 | 1:
            return commits.delete(subject, upload.asset.name, CALLER)
        case 2:
            return ledger.revoke(subject, CALLER)
        case 3:
            return commits.refuse(subject, "signature_used", CALLER, 1)
        case _:
            return commits.commit(subject, upload, CALLER)


def some_of_relays(rng: random.Random, label: str, begun: list[Relay]) -> Operation[Any]:
    """Relays that begin and end, uploads and revocations that meet in a few grants."""
    subject = grant(f"r{rng.randrange(8)}", max_uses=rng.choice((1, 2, 3)))
    further = [grant(f"r{number}", max_uses=2) for number in (8, 9)][: rng.choice((0, 0, 0, 1, 2))]
    digest = Digest(3, "0" * 32, rng.choice("12") * 64)
    key_hash = rng.choice((None, b"k" * 32))
    match rng.randrange(12):
        case 0:
            return commits.commit(subject, draft("n", blob=label), CALLER)
        case 1:
            return ledger.revoke(subject, CALLER)
        case 2 | 3 | 4 | 5 | 6 if begun:
            ending = begun.pop(rng.randrange(len(begun)))
            return relays.end(ending, rng.choice((ANSWER, None, None, None)), "existing")
        case _:
            return relays.begin(replace(relay(subject, *further, id=label, key_hash=key_hash), digest=digest), 60)


def rows(database: Opened) -> dict[Table, list[list[tuple[str, Any]]]]:
    found = {table: run(database.rows(table, None, 10_000)) for table in Table}
    return {
        table: sorted((sorted((n, v) for n, v in row.items() if n not in _UNORDERED) for row in each), key=repr)
        for table, each in found.items()
        if table is not Table.KEYS
    }


Some = Callable[[random.Random, str, list[Relay]], Operation[Any]]


def check_both_end_alike(ours: Opened, other: Opened, clock: SteppedClock, seed: int, some: Some = some) -> None:
    rng, begun = random.Random(seed), list[Relay]()
    for database in (ours, other):
        run(database.condemn(["condemned"]))
    for turn in range(6):
        group = [some(rng, f"{seed}/{turn}/{number}", begun) for number in range(rng.choice((1, 3, 12, 24)))]
        told = as_one_group(ours, group)
        assert told == as_one_group(other, group)
        begun += [each for each in told if isinstance(each, Relay)]
        clock.time += rng.choice((-2, 0, 1, 3))
    assert rows(ours) == rows(other)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_engines_end_alike(database: PostgresDatabase, other: Opened, clock: SteppedClock, seed: int) -> None:
    check_both_end_alike(database, other, clock, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_both_engines_end_relays_alike(
    database: PostgresDatabase, other: Opened, clock: SteppedClock, seed: int
) -> None:
    check_both_end_alike(database, other, clock, seed, some_of_relays)


_USED = r"diff: \('signature_used'.*\)"


@pytest.mark.parametrize(
    ("some", "name", "text", "wrong", "seen"),
    [
        (some, "put_asset", "version_id = excluded.version_id, ", "", r"diff: Asset\("),
        (some, "spend_grant", "uses = grants.uses + 1", "uses = grants.uses", r"diff: Committed\("),
        (some, "find_condemned", ":blob_key", ":blob_key AND false", r"diff: Committed\(.*blob_key='condemned'"),
        (
            some_of_relays,
            "take_grant",
            "pending = grants.pending + 1",
            "pending = 1",
            f"{_USED} != \\('outcome_unknown",
        ),
        (some_of_relays, "free_grant", "uses = uses - 1", "uses = uses", rf"{_USED} != Relay\("),
        (some_of_relays, "end_relay", "relay_id = :relay_id", "relay_id = :relay_id AND false", "diff: False != True"),
    ],
)
def test_the_check_goes_red_when_a_statement_of_one_engine_is_broken(
    database: PostgresDatabase,
    other: Opened,
    clock: SteppedClock,
    monkeypatch: pytest.MonkeyPatch,
    some: Some,
    name: str,
    text: str,
    wrong: str,
    seen: str,
) -> None:
    monkeypatch.setitem(load("postgres"), name, changed("postgres", name, text, wrong))
    with pytest.raises(AssertionError, match=seen):
        for seed in SEEDS:
            check_both_end_alike(database, other, clock, seed, some)


def test_of_rivals_in_one_group_as_many_win_as_the_grant_has_uses(database: PostgresDatabase) -> None:
    contested = grant("contested", max_uses=3)
    rivals = [commits.commit(contested, draft(f"n{number % 2}", blob=f"b{number}"), CALLER) for number in range(12)]
    told = as_one_group(database, rivals)
    assert [isinstance(each, tuple) for each in told] == [False] * 3 + [True] * 9
    record = run(database.find_grant(contested.key))
    assert record is not None
    assert record.uses == 3


def test_groups_that_need_the_same_things_in_opposite_orders_do_not_wait_for_one_another(
    database: PostgresDatabase,
) -> None:
    """PostgreSQL would end one of two that do, after a second."""
    second = PostgresDatabase(
        database._address.url, secrets=database._secrets, clock=SteppedClock(), seconds=60, slack=0
    )
    second.open()

    async def story() -> set[str]:
        told: set[str] = set()
        for turn in range(20):
            things = [(grant(f"{turn}/{n}", max_uses=2), f"name{n}", f"{turn}/{{}}/{n}") for n in range(8)]
            work = [
                attempt(server, used, draft(name, blob=blob.format(label)))
                for label, server, order in (("a", database, things), ("b", second, things[::-1]))
                for used, name, blob in order
            ]
            told |= set(await asyncio.gather(*work))
        return told

    assert run(story()) == {"ok"}
    second.close()


@operation(rules=Rules.SHARED, grouped=True)
def torn(_: float) -> Steps[Any]:
    """Against the rule of all operations, it refuses after it has written."""
    yield [("condemn", {"blob_key": "torn", "at": 1})]
    raise NotFound("too late")


@operation(rules=Rules.SHARED, grouped=True)
def broken(_: float) -> Steps[Any]:
    yield [("condemn", {"blob_key": None, "at": 1})]


def test_an_operation_that_fails_undoes_its_own_work_only(database: PostgresDatabase) -> None:
    good = [commits.commit(grant(f"g{n}"), draft(f"n{n}", blob=f"b{n}"), CALLER) for n in range(2)]
    first, refused, failed, last = database._committer._engine.transact(
        [good[0], torn(), broken(), good[1]], lambda: ()
    )
    assert [each.asset.blob_key for each in (first, last)] == ["b0", "b1"]
    assert isinstance(refused, NotFound)
    assert failed.code == "database_unavailable"
    assert run(database.read(upkeep.count_rows(Table.CONDEMNED))) == 0


def test_many_uses_of_one_grant_share_few_transactions_with_others(database: PostgresDatabase) -> None:
    """Each use needs its own wave, and those behind the last wave wait for the next transaction."""
    same = [commits.commit(grant("same"), draft(blob=f"b{number}"), CALLER) for number in range(20)]
    others = [commits.commit(grant(f"o{n}"), draft(f"o{n}", blob=f"o{n}"), CALLER) for n in range(20)]
    chosen = database._committer._engine.choose([*same, *others])
    assert sum(chosen[:20]) == 8
    assert all(chosen[20:])
