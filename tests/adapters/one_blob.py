"""Spool and publish one blob in a separate process, for strace to watch and to break.

    python -m tests.adapters.one_blob ROOT MEBIBYTES [MUTANT]

Prints an Outcome as JSON.
"""

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

from tests.adapters.descriptors import descriptors
from uponce.adapters.store import local
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.system import sync_folder
from uponce.app.ports import Spooled
from uponce.core.errors import UponceError

KEY = f"{1:032x}"
BLOCK = bytes(65_536)

MUTANTS: dict[str, Callable[[], object]] = {
    "no fsync at all": lambda: patch("os.fsync", lambda _: None).start(),
    "no folder fsync": lambda: patch("uponce.adapters.store.local.sync_folder", lambda _: None).start(),
    "fsync after rename": lambda: patch.object(local.LocalBlobs, "put", _rename_first).start(),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`code` of the upload and `again` of a second publish: ok, or that of the error.

    `left` are the files that are there at the end, after a discard if it failed; `descriptors` counts those of the
    store that are then open; `peak_kib` is what it has grown by.
    """

    code: str
    again: str
    left: list[str]
    descriptors: int
    peak_kib: int


class FixedIds:
    def hex(self, length: int) -> str:
        return KEY[:length]

    base36 = hex

    def dated_hex(self) -> str:
        return self.hex(32)


def _rename_first(self: local.LocalBlobs, key: str, path: Path, descriptor: int, media_type: str) -> None:
    target = self.path_of(key)
    path.rename(target)
    os.fsync(descriptor)
    sync_folder(target.parent)


async def code_of(work: Awaitable[object]) -> str:
    try:
        await work
    except UponceError as error:
        return error.code
    return "ok"


async def _send(spooled: Spooled, mebibytes: int) -> None:
    for _ in range(mebibytes * 16):
        await spooled.write(BLOCK)
    await spooled.seal()
    await spooled.publish()


async def _play(store: Blobs, mebibytes: int) -> tuple[str, str]:
    spooled = await store.receive()
    code = await code_of(_send(spooled, mebibytes))
    again = await code_of(spooled.publish())
    if code != "ok":
        await spooled.discard()
    return code, again


def _peak_kib() -> int:
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def main(root: str, mebibytes: str, mutant: str = "") -> None:
    if mutant:
        MUTANTS[mutant]()
    store = local.LocalBlobs(Path(root), ids=FixedIds())
    store.open_store()
    asyncio.run(store.ping())  # a thread and a loop have been there once
    peak = _peak_kib()
    code, again = asyncio.run(_play(store, int(mebibytes)))
    store.close()
    left = sorted(str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file())
    print(json.dumps(asdict(Outcome(code, again, left, len(descriptors(Path(root))), _peak_kib() - peak))))


if __name__ == "__main__":
    main(*sys.argv[1:])
