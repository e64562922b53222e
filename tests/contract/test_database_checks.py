"""What the database says of itself, on every back end: all of it is true, and sound after ordinary work."""

from dataclasses import replace

import pytest

from tests.contract.databases import (
    CALLER,
    SKEW,
    START,
    Backend,
    draft,
    grant,
    publish,
    relay,
    run,
    unlimited,
)
from tests.contract.test_database_relays import ANSWER, begun
from uponce.app.ports import Database, Rule
from uponce.core.values import Digest

AUDIT_SECONDS = 90 * 86400
MOST = 10
KEYS = [f"{number:032x}" for number in (0, 1, 0xAB << 120, (0xAB << 120) + 5, 16**32 - 1)]
KEYS += [f"p{number:031x}" for number in (0, 0xAB << 116, 16**31 - 1)]


def commit(database: Database, blob: str) -> None:
    run(database.commit(grant(blob), draft(blob, blob=blob), CALLER))


def test_digests_are_those_of_the_catalog_narrowed_to_a_prefix(database: Database) -> None:
    for key in KEYS:
        commit(database, key)
    for prefix in ("", "0", "00", "ab", "a", "ff", "f" * 32, "cd", "p", "p0", "pab", "pf"):
        expected = {key: Digest(3, "0" * 32, "1" * 64) for key in KEYS if key.startswith(prefix)}
        assert run(database.digests(prefix)) == expected


def test_a_key_that_is_none_has_no_digest_but_breaks_a_rule(database: Database) -> None:
    for key in ("ab", "ab" * 16 + "a", "ab" + "G" * 30, "AB" * 16, "pp" + "a" * 30, "q" + "a" * 31, "P" + "a" * 31):
        commit(database, key)
    commit(database, KEYS[0])
    assert list(run(database.digests(""))) == [KEYS[0]]
    assert len(run(database.violations(Rule.ADDRESSABLE, AUDIT_SECONDS, MOST))) == 7


def test_the_replaced_blob_has_no_digest_any_more(database: Database) -> None:
    for number in (0, 1):
        run(database.commit(grant(str(number)), draft(blob=KEYS[number]), CALLER))
    assert list(run(database.digests(""))) == [KEYS[1]]


def test_condemned_blobs_are_told_apart(database: Database) -> None:
    commit(database, KEYS[0])
    assert run(database.condemn(KEYS[:2])) == [KEYS[1]]
    assert run(database.condemned(KEYS)) == [KEYS[1]]
    assert run(database.condemned([])) == []


@pytest.mark.parametrize("rule", sorted(Rule))
def test_ordinary_work_breaks_no_rule(backend: Backend, database: Database, rule: Rule) -> None:
    """Uploads, overwrites, reuse, an unlimited key, revocation, condemnation, relays and a purge."""
    many = unlimited(grant("many"))
    for number, key in enumerate(KEYS):
        run(database.commit(many, draft(f"cat-{number % 2}", blob=key), CALLER))
    run(database.record_refusal(grant("many"), "signature_used", CALLER))
    run(database.revoke_grant(grant("revoked"), CALLER))
    run(database.condemn(["9" * 32]))
    for name, subject in (("pending", grant("pending")), ("also", many), ("spent", many), ("free", many)):
        passed_on = run(begun(database, relay(subject, id=name)))
        if name in ("spent", "free"):
            run(database.end_relay(passed_on, ANSWER if name == "spent" else None))
    run(database.revoke_grant(grant("pending"), CALLER))
    old = grant("old", at=START - 3600)
    run(database.commit(old, draft("old", blob="8" * 32), CALLER))
    backend.clock.time = old.keep_until + 1
    assert run(database.purge(AUDIT_SECONDS)) == 1
    assert run(database.violations(rule, AUDIT_SECONDS, MOST)) == []


def test_a_purge_that_does_not_run_is_told_after_an_hour(backend: Backend, database: Database) -> None:
    run(publish(database, "a"))
    until = grant("a").keep_until
    for late, count in ((3600, 0), (3601, 1)):
        backend.clock.time = until + late
        assert len(run(database.violations(Rule.PURGED, AUDIT_SECONDS, MOST))) == count


@pytest.mark.parametrize(("skew", "ahead"), [("", 3600), ("300", 3600), ("7200", 7200)])
def test_a_use_long_before_the_timestamp_may_have_lost_its_audit_row(
    backend: Backend, database: Database, skew: str, ahead: int
) -> None:
    if skew:
        run(database.note_settings({"skew": skew}))
    early = grant("early", at=START + ahead)
    run(database.commit(early, draft("early", blob=KEYS[0]), CALLER))
    backend.clock.time += 60
    run(database.purge(0))
    assert run(database.violations(Rule.AUDITED, 0, MOST)) == []
    assert run(database.violations(Rule.AUDITED, 61, MOST)) == [early.key.hex()]


def test_uses_from_before_the_oldest_audit_row_may_have_lost_theirs(backend: Backend, database: Database) -> None:
    """A purge with a shorter time may have deleted them. One of two uses may have its row."""
    twice = grant("twice", max_uses=2)
    for number in (0, 1):
        commit(database, KEYS[number])
        run(database.commit(twice, draft("twice", blob=KEYS[number + 2]), CALLER))
        backend.clock.time += 60
    assert run(database.purge(60)) == 0
    assert run(database.violations(Rule.AUDITED, AUDIT_SECONDS, MOST)) == []


def test_violations_name_the_grant(backend: Backend, database: Database) -> None:
    forgotten = replace(grant("a"), keep_until=START - 10_000)
    run(database.commit(forgotten, draft(blob=KEYS[0]), CALLER))
    assert run(database.violations(Rule.PURGED, AUDIT_SECONDS, MOST)) == [forgotten.key.hex()]


@pytest.mark.parametrize("rule", sorted(Rule))
def test_a_rule_that_many_grants_break_fills_no_memory_and_all_are_counted(database: Database, rule: Rule) -> None:
    """After a restore, all the ledger may be at or before the watermark."""
    for number in range(5):
        subject = replace(grant(str(number)), keep_until=START - 10_000)
        run(database.commit(subject, draft(str(number), blob=f"no key {number}"), CALLER))
    run(database.fence(SKEW))
    broken = 5 if rule in (Rule.ADDRESSABLE, Rule.PURGED, Rule.AFTER_WATERMARK) else 0
    assert run(database.count_violations(rule, AUDIT_SECONDS)) == broken
    for most in (3, MOST):
        assert len(set(run(database.violations(rule, AUDIT_SECONDS, most)))) == min(broken, most)


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_database_is_told_to_be_so(database: Database, deep: bool) -> None:
    for key in KEYS:
        commit(database, key)
    assert run(database.integrity(deep=deep)) == []
