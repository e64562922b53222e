"""One upload in one process, straight through the use case on real adapters: what is killed at each of its steps.

    python -m proof.faults.one_upload DATA_DIR FIELDS_AS_JSON [IDEMPOTENCY_KEY]
    python -m proof.faults.one_upload DATA_DIR               recovery: opens, sweeps, closes

An acknowledged upload prints its asset_id. It overwrites the asset that `prepare` has made, so that it goes through
every step there is: spooled, publish, commit, delete the bytes that were replaced.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from proof.faults.operator import recover, settings
from uponce.adapters.files import guarded
from uponce.adapters.spool.disk import Disk
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.system import RandomIds
from uponce.app.authorise import UploadRequest
from uponce.app.manage_keys import set_up
from uponce.app.owner import claim_storage
from uponce.app.ports import Committed, Ids
from uponce.app.services import Services
from uponce.app.sign import mint
from uponce.app.uploading.intake import Event, Field, FileStart
from uponce.app.uploading.pipeline import Uploaded
from uponce.app.uploading.streamed import upload
from uponce.core.errors import UponceError
from uponce.core.values import Caller, MediaFacts, Payer, ResourceType
from uponce.wiring import Backend, group_putter, opened

T = TypeVar("T")

FIRST, SECOND, THIRD = (name * 1000 for name in (b"first", b"second", b"third"))

# The first key that NumberedIds gives is that of the spooled blob, or of a series, whose blob has the second one then.
BLOB_KEY, SECOND_KEY = f"{1:032x}", f"{2:032x}"


class NumberedIds:
    """The same ids in every run, so that paths are known before."""

    def __init__(self) -> None:
        self._last = 0

    def hex(self, length: int) -> str:
        self._last += 1
        return f"{self._last:0{length}x}"

    base36 = hex

    def dated_hex(self) -> str:
        return self.hex(32)


class InlineDisk(Disk):
    """Works in the thread of its caller: system calls are counted per thread, and must be the same in every run."""

    async def in_thread(self, work: Callable[[], T]) -> T:
        return guarded(work)


class RawInspector:
    async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
        return MediaFacts(ResourceType.RAW)

    async def ping(self) -> None:
        return None


def services_of(backend: Backend, ids: Ids) -> Services:
    blobs = LocalBlobs(backend.blobs.folder.parent, ids=ids, disk=InlineDisk())
    put_group = group_putter(backend.database, blobs, alone=True)
    return replace(backend.services, blobs=blobs, put_group=put_group, inspector=RawInspector(), ids=ids)


async def send(
    services: Services, cloud: str, fields: dict[str, str], data: bytes, key: str | None = None
) -> Committed:
    async def events() -> AsyncIterator[Event]:
        for name, value in fields.items():
            yield Field(name, value)
        yield FileStart("cat.bin")
        yield data

    request = UploadRequest(cloud, ResourceType.RAW, (), None, Caller("192.0.2.1", "request-1"), key)
    uploaded = await upload(services, request, events())
    assert isinstance(uploaded, Uploaded)
    return uploaded.committed


def prepare(data_dir: Path) -> dict[str, str]:
    """Make a folder with keys and one asset. Return the signed fields of an upload that will overwrite it."""
    with opened(settings(data_dir), create=True) as backend:
        services = services_of(backend, RandomIds())

        async def first() -> dict[str, str]:
            await claim_storage(services.database, services.blobs)
            key, _ = await set_up(services, backend.settings.cloud)
            before, after = (mint(key, {"public_id": "cat"}, clock=services.clock, ids=services.ids) for _ in range(2))
            await send(services, key.cloud, before, FIRST)
            return after

        return asyncio.run(first())


def try_again(data_dir: Path, fields: dict[str, str]) -> str:
    """`ok`, or the code of the refusal; the bytes are THIRD."""
    return ask_again(data_dir, fields, THIRD)[0]


def ask_again(data_dir: Path, fields: dict[str, str], data: bytes, key: str | None = None) -> tuple[str, str]:
    """`ok` or `replayed` with the asset_id, or the code of the refusal."""
    with opened(settings(data_dir)) as backend:
        services = services_of(backend, RandomIds())
        try:
            committed = asyncio.run(send(services, backend.settings.cloud, fields, data, key))
        except UponceError as error:
            return error.code, ""
        return "replayed" if committed.replayed else "ok", committed.asset.asset_id


def main(data_dir: str, fields: str = "", key: str | None = None) -> None:
    if not fields:
        recover(Path(data_dir))
        return
    with opened(settings(Path(data_dir))) as backend:
        services = services_of(backend, NumberedIds())
        committed = asyncio.run(send(services, backend.settings.cloud, json.loads(fields), SECOND, key))
        acknowledge(committed.asset.asset_id)


def acknowledge(asset_id: str) -> None:
    print(asset_id, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
