"""`one_step` whose deletion is acknowledged as soon as the asset is found, and committed after that."""

import sys

from proof.faults import one_step
from proof.faults.one_upload import acknowledge
from uponce.app import signed_calls
from uponce.app.authorise import Verified
from uponce.app.services import Services
from uponce.core.values import AssetName, Caller

_delete = signed_calls._delete


async def answer_then_delete(services: Services, verified: Verified, name: AssetName, caller: Caller) -> bool:
    if await services.database.find_asset(name) is not None:
        acknowledge("done")
    return await _delete(services, verified, name, caller)


signed_calls._delete = answer_then_delete

if __name__ == "__main__":
    one_step.main(*sys.argv[1:])
