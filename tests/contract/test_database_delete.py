"""What any Database must do, run on every back end: delete an asset and spend the signature, both or neither."""

import asyncio
from dataclasses import replace

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
    run,
    unlimited,
)
from tests.contract.guarantees import check_one_deletion_or_upload, removal
from uponce.app.ports import Committed, Database, Rule
from uponce.core.errors import SignatureUsed
from uponce.core.values import Asset, AuditEvent, DeliveryType, Grant, ResourceType

NAME = draft(blob="x").asset.name
AUDIT_SECONDS = 90 * 86400


def delete(database: Database, name: str, public_id: str = "cat") -> str:
    return run(removal(database, grant(name), replace(NAME, public_id=public_id)))


def uses(database: Database, subject: Grant) -> int:
    record = run(database.find_grant(subject.key))
    return record.uses if record else 0


def test_the_asset_goes_and_the_signature_is_spent(backend: Backend, database: Database) -> None:
    """`delete` returns the asset as it was; no row names its bytes from now on."""
    made = run(publish(database, "made")).asset
    backend.clock.time += 5
    assert run(database.delete(grant("d"), NAME, CALLER)) == made
    assert run(database.find_asset(NAME)) is run(database.find_commit("blob-made")) is None
    assert run(database.condemn(["blob-made"])) == ["blob-made"]
    record = run(database.find_grant(grant("d").key))
    assert record is not None
    assert (record.uses, record.spent_at) == (1, START + 5)
    (line,) = run(database.history(grant("d").key, 10))
    assert (line.at, line.event, line.caller) == (START + 5, AuditEvent.DELETED, CALLER)
    assert (line.asset_id, line.public_id) == (made.asset_id, "cat")


def test_what_is_not_there_spends_nothing_and_leaves_no_trace(database: Database) -> None:
    run(publish(database, "other", "dog"))
    assert delete(database, "d") == "not found"
    assert run(database.find_grant(grant("d").key)) is None
    assert run(database.history(grant("d").key, 10)) == []
    run(publish(database, "made"))
    assert delete(database, "d") == "ok"


def test_a_signature_works_for_one_operation_whatever_it_is(database: Database) -> None:
    run(publish(database, "made"))
    assert delete(database, "made") == "signature_used", "an upload spent it"
    assert delete(database, "d") == "ok"
    assert delete(database, "d") == "signature_used", "also where nothing is left to delete"
    assert run(attempt(database, grant("d"), draft(blob="again"))) == "signature_used"
    assert run(attempt(database, grant("made"), draft(blob="again"))) == "signature_used"
    for there_is_one in (False, True):
        if there_is_one:
            run(publish(database, "one more"))
        with pytest.raises(SignatureUsed, match="already used by a call that completed at 2026-01-01"):
            run(database.delete(grant("d"), NAME, CALLER))
    with pytest.raises(SignatureUsed, match="already used by an upload that completed at 2026-01-01"):
        run(database.commit(grant("made"), draft(blob="again"), CALLER))


def test_only_that_one_asset_goes(database: Database) -> None:
    others = [
        replace(NAME, cloud="other"),
        replace(NAME, resource_type=ResourceType.RAW),
        replace(NAME, type=DeliveryType.PRIVATE),
        replace(NAME, public_id="CAT"),
        replace(NAME, public_id="cat/1"),
    ]
    run(publish(database, "made"))
    for number, other in enumerate(others):
        run(database.commit(grant(f"n{number}"), draft(blob=f"b{number}", name=other), CALLER))
    assert delete(database, "d") == "ok"
    assert all(run(database.find_asset(other)) for other in others)


def test_a_name_can_be_used_again(backend: Backend, database: Database) -> None:
    first = run(publish(database, "a")).asset
    assert delete(database, "d") == "ok"
    backend.clock.time += 1
    again = run(publish(database, "b"))
    assert not again.overwritten and not again.existing
    assert again.asset.version > first.version
    assert again.asset.asset_id != first.asset_id
    assert delete(database, "e") == "ok"


def test_a_revoked_signature_deletes_nothing(database: Database) -> None:
    run(publish(database, "made"))
    run(database.revoke_grant(grant("d"), CALLER))
    assert delete(database, "d") == delete(database, "d", "not there") == "signature_revoked"
    assert run(database.find_asset(NAME)) is not None


def test_a_revoked_key_deletes_nothing(database: Database) -> None:
    run(publish(database, "made"))
    run(database.revoke_key(KEY.api_key))
    assert delete(database, "d") == delete(database, "d", "not there") == "unknown_api_key"
    assert run(database.find_asset(NAME)) is not None


def test_after_a_fence_or_a_purge_old_signatures_delete_nothing(database: Database) -> None:
    run(publish(database, "made"))
    run(database.fence(SKEW))
    assert delete(database, "d") == delete(database, "d", "not there") == "stale_request"
    assert uses(database, grant("d")) == 0
    assert run(removal(database, grant("d", at=START + SKEW + 1), NAME)) == "ok"


def test_the_signature_of_a_deletion_is_kept_and_purged_as_any_other(backend: Backend, database: Database) -> None:
    run(publish(database, "made"))
    assert delete(database, "d") == "ok"
    backend.clock.time = grant("d").keep_until
    run(database.purge(AUDIT_SECONDS))
    assert uses(database, grant("d")) == 1
    backend.clock.time += 1
    run(database.purge(AUDIT_SECONDS))
    assert uses(database, grant("d")) == 0
    assert delete(database, "d") == "stale_request"


def test_an_unlimited_signature_deletes_again_and_again(database: Database) -> None:
    """Each deletion is one use in the ledger and one line in the audit; nothing found is neither."""
    subject = unlimited(grant("server"))
    told = []
    for number in range(3):
        run(publish(database, f"n{number}"))
        told += [run(removal(database, subject, NAME)) for _ in range(2)]
    assert told == ["ok", "not found"] * 3
    assert uses(database, subject) == len(run(database.history(subject.key, 10))) == 3


def test_afterwards_the_books_are_sound(database: Database) -> None:
    run(publish(database, f"{1:032x}"))
    assert delete(database, "d") == "ok"
    assert [run(database.violations(rule, AUDIT_SECONDS, 10)) for rule in Rule if rule is not Rule.ADDRESSABLE] == [
        []
    ] * (len(Rule) - 1)


def test_a_stored_answer_tells_of_an_asset_that_was_deleted_since(database: Database) -> None:
    keyed = replace(draft(blob="first"), idempotency_key="key")
    first = run(database.commit(grant("a"), keyed, CALLER))
    assert delete(database, "d") == "ok"
    again = run(database.commit(grant("a"), replace(draft(blob="again"), idempotency_key="key"), CALLER))
    assert (again.asset, again.replayed) == (first.asset, True)
    assert run(database.find_asset(NAME)) is None


@pytest.mark.parametrize("uploads", [0, 1], ids=["an upload is first", "a deletion is first"])
@pytest.mark.parametrize("servers", [1, 2])
def test_of_deletions_and_uploads_with_one_signature_one_happens(
    backend: Backend, database: Database, servers: int, uploads: int
) -> None:
    others = [backend.server() for _ in range(servers - 1)]
    run(check_one_deletion_or_upload([database, *others], uploads=uploads))


def test_of_deletions_of_one_asset_one_gets_it_and_the_others_spend_nothing(
    backend: Backend, database: Database
) -> None:
    servers = [database, backend.server()]
    run(publish(database, "made"))

    async def many() -> list[str]:
        return await asyncio.gather(*(removal(servers[n % 2], grant(f"d{n}"), NAME) for n in range(20)))

    told = run(many())
    assert sorted(told) == ["not found"] * 19 + ["ok"]
    assert [uses(database, grant(f"d{n}")) for n in range(20)] == [int(answer == "ok") for answer in told]


def test_of_every_blob_somebody_is_told_that_it_is_not_needed(backend: Backend, database: Database) -> None:
    """Overwrites and deletions of one name at once: each version is replaced, deleted, or there; once each."""
    servers = [database, backend.server()]

    async def many() -> list[Committed | Asset | None]:
        calls = [
            call
            for number in range(20)
            for call in (
                publish(servers[number % 2], f"n{number}"),
                servers[(number + 1) % 2].delete(grant(f"d{number}"), NAME, CALLER),
            )
        ]
        return await asyncio.gather(*calls)

    told = run(many())
    last = run(database.find_asset(NAME))
    gone = [one.unneeded_blob for one in told if isinstance(one, Committed) and one.overwritten]
    gone += [one.blob_key for one in told if isinstance(one, Asset)]
    assert sorted([*map(str, gone), *([last.blob_key] if last else [])]) == sorted(f"blob-n{n}" for n in range(20))
