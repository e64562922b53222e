"""`one_upload` that stores the answer of a keyed upload when it is known, in a separate transaction."""

import sys
from dataclasses import replace

from proof.faults import one_upload
from uponce.adapters.database.commits import reply_params
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.steps import Steps, operation
from uponce.app.ports import Committed, Draft
from uponce.core.relaying import repeat_hash
from uponce.core.values import Caller, Grant

_commit = SqliteDatabase.commit


@operation()
def keep_reply(_: float, grant: Grant, draft: Draft, key: str, committed: Committed) -> Steps[None]:
    yield [("keep_reply", reply_params(grant, repeat_hash(key), draft.asset.digest, committed))]


async def commit_then_keep(self: SqliteDatabase, grant: Grant, draft: Draft, caller: Caller) -> Committed:
    committed = await _commit(self, grant, replace(draft, idempotency_key=None), caller)
    if draft.idempotency_key is not None:
        await self.write(keep_reply(grant, draft, draft.idempotency_key, committed))
    return committed


SqliteDatabase.commit = commit_then_keep

if __name__ == "__main__":
    one_upload.main(*sys.argv[1:])
