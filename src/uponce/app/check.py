"""Ask every port whether it works."""

import asyncio
from collections.abc import Awaitable

from uponce.app.services import Services
from uponce.core.errors import UponceError

_SECONDS = 5


async def check_ready(services: Services) -> dict[str, str | None]:
    """What each part the server stands on says: None is fine, else what is wrong with it."""
    database, storage, decoders = await asyncio.gather(
        _problem(services.database.ping()), _problem(services.blobs.ping()), _problem(services.inspector.ping())
    )
    return {"database": database, "storage": storage, "decoders": decoders}


async def _problem(ping: Awaitable[None]) -> str | None:
    try:
        async with asyncio.timeout(_SECONDS):
            await ping
    except UponceError as error:
        return error.message
    except TimeoutError:
        return f"no answer within {_SECONDS} seconds"
    return None
