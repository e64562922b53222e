"""Deletion of bytes that no row names any more, once an upload has committed."""

from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from uponce.app.services import Services
from uponce.app.unbroken import later
from uponce.core.errors import Unavailable


async def drop(services: Services, deletion: Coroutine[Any, Any, None]) -> None:
    """Delete bytes that no row names any more. If this fails, the sweeper deletes them.

    The client of an upload waits for a disk, which is quick, and not for another machine.
    """
    if services.blobs.is_remote:
        await later(deletion)
        return
    with suppress(Unavailable):
        await deletion
