"""`one_upload` with its last two steps swapped: a row may name bytes that are not there yet."""

import sys

from proof.faults import one_upload
from uponce.app.authorise import Admitted
from uponce.app.ports import Committed, Draft, Spooled
from uponce.app.services import Services
from uponce.app.uploading import streamed as upload


async def commit_first(services: Services, admitted: Admitted, draft: Draft, spooled: Spooled) -> Committed:
    committed = await services.database.commit(admitted.grant, draft, admitted.caller)
    await spooled.publish()
    return committed


upload._commit = commit_first

if __name__ == "__main__":
    one_upload.main(*sys.argv[1:])
