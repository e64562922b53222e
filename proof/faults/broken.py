"""Servers of one process that are broken on purpose, for the state machine to find out."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple
from unittest.mock import patch

from proof.faults.bytes_first import bytes_first
from proof.faults.statements import changed
from tests.contract.test_mutants import PurgeByTimeOfUse, PurgeWithoutWatermark, SelectThenInsert
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.statements import load
from uponce.app import authorise, signed_calls
from uponce.app.authorise import Admitted
from uponce.app.ports import Committed, Draft, Publishable
from uponce.app.services import Services
from uponce.app.uploading import streamed as upload
from uponce.core.signature import Signer, verify
from uponce.core.values import ApiKey, Caller, Grant


class FreeWhenItExists(SqliteDatabase):
    """Nothing is written when the asset exists and is to stay, so nothing is spent, is it?"""

    async def commit(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        old = await self.find_asset(draft.asset.name)
        if old is not None and not draft.overwrite:
            return Committed(old, existing=True, unneeded_blob=draft.asset.blob_key)
        return await super().commit(grant, draft, caller)


def verify_by_hex(params: Mapping[str, str], key: ApiKey) -> tuple[str, Signer]:
    """Verify a signature, but return the digest as it was received. The grant key is made from it."""
    return params["signature"], verify(params, key)[1]


async def commit_then_publish(services: Services, admitted: Admitted, draft: Draft, blob: Publishable) -> Committed:
    committed = await services.database.commit(admitted.grant, draft, admitted.caller)
    await blob.publish()
    return committed


_commit = upload.commit


async def commit_and_tidy(services: Services, admitted: Admitted, draft: Draft, blob: Publishable) -> Committed:
    """Commit, and discard the spooled file in any case."""
    committed = await _commit(services, admitted, draft, blob)
    await blob.discard()
    return committed


class Broken(NamedTuple):
    patched: AbstractContextManager[Any]
    database: type[SqliteDatabase] = SqliteDatabase


def variants() -> dict[str, Broken]:
    """By what is wrong with them; each to be used once."""
    careless = changed("sqlite", "spend_grant", "AND grants.revoked_at IS NULL", "")
    return {
        "purge by time of use": Broken(nullcontext(), PurgeByTimeOfUse),
        "purge without watermark": Broken(nullcontext(), PurgeWithoutWatermark),
        "not spent when the asset exists": Broken(nullcontext(), FreeWhenItExists),
        "select-then-insert": Broken(nullcontext(), SelectThenInsert),
        "revocation ignored at the commit": Broken(patch.dict(load("sqlite"), {"spend_grant": careless})),
        "key by the received hex": Broken(patch.object(authorise, "verify", verify_by_hex)),
        "blob discarded on success": Broken(patch.object(upload, "commit", commit_and_tidy)),
        "commit before publish": Broken(patch.object(upload, "commit", commit_then_publish)),
        "bytes deleted before the row": Broken(patch.object(signed_calls, "_delete", bytes_first)),
    }
