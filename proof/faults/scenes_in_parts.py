"""Kill points of uploads that come in several requests: each part begins where the parts before it have arrived.

After a kill the client goes on as clients do: it sends again what was not acknowledged, or asks the upload's address.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from proof.faults.audit import count
from proof.faults.one_part import (
    CALLER,
    CREATION,
    ENDS,
    PARTS,
    UPLOAD_ID,
    WHOLE,
    Film,
    address_in,
    chunk,
    create,
    part,
    patch,
    services_for_parts,
)
from proof.faults.one_upload import NumberedIds
from proof.faults.operator import settings
from proof.faults.scenes import Scene, digest, origin_in, signed_by
from uponce.adapters.system import RandomIds
from uponce.app.services import Services
from uponce.app.uploading.pipeline import Uploaded
from uponce.app.uploading.resumable import conclude, status
from uponce.core.errors import UponceError
from uponce.core.series import Series
from uponce.wiring import opened

PART = "proof.faults.one_part"
FIRST, MIDDLE, LAST = range(len(PARTS))
_NAMES = {CREATION: "a creation by", FIRST: "the first", MIDDLE: "a middle", LAST: "the last"}
_PARTS_OF = {"chunk": (FIRST, MIDDLE, LAST), "tus": (CREATION, FIRST, MIDDLE, LAST)}


def arriving(kind: str, number: int, folder: Path, module: str = PART) -> Scene:
    """Return the arrival of the part with that number, when all parts before it have arrived."""
    origin_in(folder, "film")
    with opened(settings(folder)) as backend:
        film = asyncio.run(_send_all_before(services_for_parts(backend, NumberedIds()), kind, number))
    noun = "chunk" if kind == "chunk" else "tus" if number == CREATION else "PATCH"
    return Scene(
        f"{_NAMES[number]} {noun}",
        folder,
        film.signed[0],
        (module, kind, str(number), msgspec.json.encode(film).decode()),
        partial(_judge, kind, number, film),
        promised=digest(WHOLE) if number == LAST else "",
        assets=2,
    )


middle_chunk = partial(arriving, "chunk", MIDDLE)
last_chunk, last_patch = partial(arriving, "chunk", LAST), partial(arriving, "tus", LAST)
IN_PARTS = tuple(partial(arriving, kind, number) for kind, numbers in _PARTS_OF.items() for number in numbers)


async def _send_all_before(services: Services, kind: str, number: int) -> Film:
    (key, *_) = await services.database.list_keys("media")
    film = Film(key.cloud, tuple(signed_by(services, key, "film") for _ in PARTS))
    if kind == "tus" and number > CREATION:
        film = msgspec.structs.replace(film, address=await create(services, film))
    for early in range(number):
        await part(services, kind, early, film)
    return film


def _judge(kind: str, number: int, film: Film, scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """Let the client go on, and check: exactly one asset of the right bytes, under all signatures that were sent."""
    go_on = _send_chunks if kind == "chunk" else _resume
    with opened(settings(data_dir)) as backend:
        services = services_for_parts(backend, RandomIds())
        yield from asyncio.run(_collected(go_on(services, number, film, acknowledged)))
    signatures = len(PARTS) if kind == "chunk" else 1
    if count(data_dir, "grants WHERE uses = 1") != 1 + signatures or count(data_dir, "grants") != 1 + signatures:
        yield "the signatures of both uploads must be used, all of them, and no other"
    films = count(data_dir, f"assets WHERE public_id = 'film' AND sha256 = '{digest(WHOLE)}'")
    if films != 1 or count(data_dir, "assets") != scene.assets:
        yield "there must be one asset of the right bytes"
    if count(data_dir, "series"):
        yield "the upload has not ended"


async def _send_chunks(services: Services, number: int, film: Film, acknowledged: str) -> AsyncIterator[str]:
    series = await services.database.find_named_series(film.cloud, film.signed[0]["api_key"], UPLOAD_ID)
    arrived = 0 if series is None else series.received
    if acknowledged and number != LAST and arrived < ENDS[number]:
        yield f"{acknowledged} bytes were acknowledged, {arrived} are there"
    *early, last = [await _verdict(chunk(services, film, late)) for late in range(number, len(PARTS))]
    if set(early) - {"more"} or last not in ("done", "signature_used") or (number != LAST and last != "done"):
        yield f"after {acknowledged or 'no answer'} the chunks got {early}, {last}"
    if acknowledged and number == LAST and last != "signature_used":
        yield f"the acknowledged last chunk got {last} when it came again"
    again = [await _verdict(chunk(services, film, late)) for late in range(len(PARTS))]
    if set(again) != {"signature_used"}:
        yield f"a replay of the chunks got {again}"


async def _resume(services: Services, number: int, film: Film, acknowledged: str) -> AsyncIterator[str]:
    if not film.address:
        film = msgspec.structs.replace(film, address=acknowledged or await create(services, film))
    try:
        state = await conclude(services, address_in(film), CALLER)
    except UponceError as error:
        yield f"after {acknowledged or 'no answer'} the address said {error.code}"
        return
    arrived = state.end if isinstance(state, Series) else len(WHOLE)
    if acknowledged and number != CREATION and arrived < ENDS[number]:
        yield f"{acknowledged} was acknowledged, {arrived} bytes are there"
    if isinstance(state, Series):
        verdict = await _verdict(patch(services, film, arrived, len(WHOLE)))
        if verdict != "done":
            yield f"the rest from {arrived} on got {verdict}"
    if not isinstance(await status(services, address_in(film)), Uploaded):
        yield "the address does not tell what became of the upload"
    again = await _verdict(patch(services, film, 0, len(WHOLE)))
    if again != "upload_complete":
        yield f"a replay got {again}"


async def _verdict(request: Awaitable[Uploaded | Series]) -> str:
    try:
        return "more" if isinstance(await request, Series) else "done"
    except UponceError as error:
        return error.code


async def _collected(complaints: AsyncIterator[str]) -> list[str]:
    return [complaint async for complaint in complaints]
