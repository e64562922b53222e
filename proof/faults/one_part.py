"""One request of an upload that comes in several, in one process on real adapters: what is killed at each of its steps.

    python -m proof.faults.one_part DATA_DIR chunk|tus NUMBER FILM_AS_JSON

NUMBER is that of the part, or CREATION. What is acknowledged is printed: the asset_id, how many bytes have arrived, or
the address of a creation.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import msgspec

from proof.faults.one_upload import NumberedIds, acknowledge, services_of
from proof.faults.operator import settings
from uponce.app.authorise import UploadRequest
from uponce.app.ports import Ids
from uponce.app.services import Services
from uponce.app.uploading.chunks import upload_chunk
from uponce.app.uploading.intake import Event, Field, FileStart
from uponce.app.uploading.pipeline import Uploaded
from uponce.app.uploading.resumable import Part, SeriesAddress, address_of, begin, resume
from uponce.core.relaying import Forwarded
from uponce.core.series import Chunk, Series
from uponce.core.spans import Span
from uponce.core.values import Caller, ResourceType
from uponce.wiring import Backend, opened

PARTS = tuple(name * 1000 for name in (b"first", b"second", b"third"))
WHOLE = b"".join(PARTS)
ENDS = tuple(accumulate(len(part) for part in PARTS))
CREATION = -1
UPLOAD_ID = "film"
CALLER = Caller("192.0.2.1", "request-1")
_BLOCK = 1000


class Film(msgspec.Struct, frozen=True):
    """An upload: the signed fields for each chunk, of which tus takes the first ones; and its address by tus."""

    cloud: str
    signed: tuple[dict[str, str], ...]
    address: str = ""


def services_for_parts(backend: Backend, ids: Ids) -> Services:
    """Chunks may be small, and a PATCH is recorded more than once."""
    services = services_of(backend, ids)
    return replace(services, limits=replace(services.limits, min_chunk_bytes=1, record_bytes=2000))


async def chunk(services: Services, film: Film, number: int) -> Uploaded | Series:
    start, end = ENDS[number] - len(PARTS[number]), ENDS[number]

    async def events() -> AsyncIterator[Event]:
        for name, value in film.signed[number].items():
            yield Field(name, value)
        yield FileStart("film.bin")
        async for block in _blocks(start, end):
            yield block

    request = UploadRequest(film.cloud, ResourceType.RAW, (), None, CALLER)
    return stored(await upload_chunk(services, request, UPLOAD_ID, Chunk(Span(start, end), len(WHOLE)), events()))


async def create(services: Services, film: Film) -> str:
    """Begin an upload, and return its address."""
    request = UploadRequest(film.cloud, ResourceType.RAW, tuple(film.signed[0].items()), None, CALLER)
    address = address_of(await begin(services, request, "film.bin", len(WHOLE)))
    return f"{address.cloud}/{address.grant_key.hex()}/{address.series_id}"


async def patch(services: Services, film: Film, start: int, end: int) -> Uploaded | Series:
    return stored(await resume(services, address_in(film), Part(start, end - start), _blocks(start, end), CALLER))


def stored(outcome: Uploaded | Forwarded | Series) -> Uploaded | Series:
    assert not isinstance(outcome, Forwarded)
    return outcome


def address_in(film: Film) -> SeriesAddress:
    cloud, grant_key, series_id = film.address.split("/")
    return SeriesAddress(cloud, bytes.fromhex(grant_key), series_id)


async def _blocks(start: int, end: int) -> AsyncIterator[bytes]:
    for at in range(start, end, _BLOCK):
        yield WHOLE[at : min(at + _BLOCK, end)]


async def part(services: Services, kind: str, number: int, film: Film) -> str:
    """Send one; what its acknowledgement says."""
    if number == CREATION:
        return await create(services, film)
    if kind == "chunk":
        outcome = await chunk(services, film, number)
    else:
        outcome = await patch(services, film, ENDS[number] - len(PARTS[number]), ENDS[number])
    return str(outcome.received) if isinstance(outcome, Series) else outcome.committed.asset.asset_id


def main(data_dir: str, kind: str, number: str, film: str) -> None:
    with opened(settings(Path(data_dir))) as backend:
        services = services_for_parts(backend, NumberedIds())
        acknowledge(asyncio.run(part(services, kind, int(number), msgspec.json.decode(film, type=Film))))


if __name__ == "__main__":
    main(*sys.argv[1:])
