"""`one_upload` with its last two steps swapped: a row may name bytes that are not there yet."""

import sys

from proof.faults import one_upload
from uponce.app.authorise import Verified
from uponce.app.ports import Committed, Draft, Spooled
from uponce.app.services import Services
from uponce.app.uploading import pipeline as upload
from uponce.core.values import Caller


async def settle(services: Services, verified: Verified, draft: Draft, spooled: Spooled, caller: Caller) -> Committed:
    committed = await services.database.commit(verified.grant, draft, caller)
    await spooled.publish()
    return committed


upload._settle = settle

if __name__ == "__main__":
    one_upload.main(*sys.argv[1:])
