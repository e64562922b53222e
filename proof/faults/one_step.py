"""One step of an operator in one process, on real adapters: what is killed at each of its system calls.

    python -m proof.faults.one_step DATA_DIR revoke FIELDS_AS_JSON
    python -m proof.faults.one_step DATA_DIR purge
    python -m proof.faults.one_step DATA_DIR rotate API_KEY
    python -m proof.faults.one_step DATA_DIR delete PUBLIC_ID

`done` is printed when the step is acknowledged.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from proof.faults.one_upload import NumberedIds, acknowledge, services_of
from proof.faults.operator import settings
from uponce.app.manage_keys import rotate_key
from uponce.app.manage_signatures import revoke_signature
from uponce.app.services import Services
from uponce.app.sign import mint
from uponce.app.signed_calls import SignedCall, destroy
from uponce.config.rules import DAY
from uponce.core.errors import NotFound
from uponce.core.parameters import Call
from uponce.core.values import Caller, KeyScope, ResourceType
from uponce.wiring import opened

CALLER = Caller("192.0.2.2", "request-2")


async def revoke(services: Services, argument: str) -> None:
    fields: dict[str, str] = json.loads(argument)
    owner = await services.database.find_key(fields["api_key"])
    if owner is None:
        raise NotFound("The folder was made with this key.")
    await revoke_signature(services, owner, fields, CALLER)


async def purge(services: Services, _: str) -> None:
    await services.database.purge(DAY)


async def rotate(services: Services, argument: str) -> None:
    await rotate_key(services, argument)


async def delete(services: Services, public_id: str) -> bool:
    """Return whether there was such an asset. The server's key signs, whose signatures are unlimited."""
    (key,) = (key for key in await services.database.list_keys() if key.scope is KeyScope.ALL)
    params = {"public_id": public_id, "nonce": services.ids.hex(20)}
    fields = mint(key, params, clock=services.clock, ids=services.ids, call=Call.DESTROY)
    return await destroy(services, SignedCall(key.cloud, ResourceType.RAW, fields, CALLER))


STEPS: dict[str, Callable[[Services, str], Coroutine[Any, Any, object]]] = {
    "revoke": revoke,
    "purge": purge,
    "rotate": rotate,
    "delete": delete,
}


def main(data_dir: str, step: str, argument: str = "") -> None:
    with opened(settings(Path(data_dir))) as backend:
        asyncio.run(STEPS[step](services_of(backend, NumberedIds()), argument))
        acknowledge("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
