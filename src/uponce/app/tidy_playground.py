"""Keep the playground small: its cloud loses files that are too old, and the oldest files when there are too many."""

from dataclasses import dataclass

from uponce.app.manage_keys import PLAYGROUND, playground_key, playground_keys
from uponce.app.services import Services
from uponce.app.signed_calls import drop_asset
from uponce.app.uploading.ending import delete_bytes
from uponce.core.values import ApiKey, Caller

_SERVER = Caller(address="the server itself", request_id="")


@dataclass(frozen=True, slots=True)
class Kept:
    """What the playground keeps: at most so many files and bytes, each for so many seconds, of at most `file_bytes`."""

    files: int
    bytes: int
    seconds: int
    file_bytes: int


async def tidy_playground(services: Services, kept: Kept) -> int:
    """Delete what the playground does not keep, oldest first. Return the number of files.

    Unfinished uploads in several requests end, the slowest first, while all of them together could exceed `bytes`.
    Raise as `playground_keys` does, and delete nothing.
    """
    for key in await playground_keys(services):
        await _end_series(services, key, kept)
    deleted = 0
    while surplus := await services.database.list_surplus(
        PLAYGROUND, files=kept.files, size=kept.bytes, seconds=kept.seconds
    ):
        key = await playground_key(services)
        for asset in surplus:
            deleted += await drop_asset(services, key, asset.name, _SERVER)
    return deleted


async def _end_series(services: Services, key: ApiKey, kept: Kept) -> None:
    most = kept.bytes // kept.file_bytes
    while blob_keys := await services.database.end_slowest_series(
        key.api_key, per_key=most + 1, in_all=2**31, rate=kept.bytes, seconds=1
    ):
        for blob_key in blob_keys:
            await delete_bytes(services, blob_key)
