"""`one_upload` with its last two steps swapped: a row may name bytes that are not there yet."""

import sys

from proof.faults import one_upload
from uponce.app.authorise import Admitted
from uponce.app.ports import Committed, Draft, Publishable
from uponce.app.services import Services
from uponce.app.uploading import streamed as upload


async def commit_first(services: Services, admitted: Admitted, draft: Draft, blob: Publishable) -> Committed:
    committed = await services.database.commit(admitted.grant, draft, admitted.caller)
    await blob.publish()
    return committed


upload.commit = commit_first

if __name__ == "__main__":
    one_upload.main(*sys.argv[1:])
