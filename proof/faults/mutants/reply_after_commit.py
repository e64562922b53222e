"""`one_upload` that stores the answer of a keyed upload once it is known, in a transaction of its own."""

import sys
from dataclasses import replace

from proof.faults import one_upload
from uponce.adapters.database.sqlite import SqliteDatabase, replies
from uponce.app.ports import Committed, Draft
from uponce.core.values import Caller, Grant

_commit = SqliteDatabase.commit


async def commit_then_keep(self: SqliteDatabase, grant: Grant, draft: Draft, caller: Caller) -> Committed:
    committed = await _commit(self, grant, replace(draft, idempotency_key=None), caller)
    await self._writer.run(lambda connection: replies.keep(connection, grant, draft, committed))
    return committed


SqliteDatabase.commit = commit_then_keep  # type: ignore[method-assign]

if __name__ == "__main__":
    one_upload.main(*sys.argv[1:])
