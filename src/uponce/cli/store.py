"""Run the work of a command on the database and the blob store."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from uponce.app.owner import claim_storage
from uponce.app.services import Services
from uponce.config import Settings
from uponce.wiring import opened

T = TypeVar("T")


def on_store(settings: Settings, work: Callable[[Services], Coroutine[Any, Any, T]], *, create: bool = False) -> T:
    """Return what the work returns. Raise NotFound if there is no database, unless `create`.

    With `create`, a new database claims the storage. Raise SettingRefused if it cannot.
    """

    async def run(services: Services) -> T:
        if create and await services.database.owner() is None:
            await claim_storage(services.database, services.blobs)
        return await work(services)

    with opened(settings, create=create) as backend:
        return asyncio.run(run(backend.services))
