"""Store three groups of small blobs in a separate process, for strace to watch and to break.

    python -m tests.adapters.one_group ROOT PACK_BYTES [MUTANT]

Prints a line of JSON for each stored group, its keys, and at last an Outcome.
"""

import asyncio
import hashlib
import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

from tests.adapters.descriptors import descriptors
from tests.contract.stores import local_of
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.system import RandomIds, sync_folder
from uponce.app.ports import Body
from uponce.core.errors import UponceError
from uponce.core.values import Digest

SIZES = (0, 5_000, 70_000)
GROUPS = 3

_late: list[Callable[[], None]] = []


def _ignore(*names: str) -> None:
    for name in names:
        patch(f"uponce.adapters.{name}", lambda _: None).start()


def _sync_later() -> None:
    """Sync all that the store asks for, but after its group is reported as stored."""
    for name in ("files.sync_file", "store.packs.sync_data"):
        patch(f"uponce.adapters.{name}", lambda number: _late.append(partial(_sync_and_close, os.dup(number)))).start()
    for name in ("store.local.sync_folder", "store.packs.sync_folder"):
        patch(f"uponce.adapters.{name}", lambda folder: _late.append(partial(sync_folder, folder))).start()


def _sync_and_close(descriptor: int) -> None:
    os.fsync(descriptor)
    os.close(descriptor)


MUTANTS: dict[str, Callable[[], object]] = {
    "no fsync of the bytes": lambda: _ignore("files.sync_file", "store.packs.sync_data"),
    "no fsync of the folder": lambda: _ignore("store.local.sync_folder", "store.packs.sync_folder"),
    "syncs later": _sync_later,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`codes` of the groups: ok, or that of the error. `wrong` are keys of stored groups that show other bytes.

    `listed` counts the blobs that are there at the end; `descriptors` those of the store that are then open.
    """

    codes: list[str]
    wrong: list[str]
    listed: int
    descriptors: int


class SeededIds(RandomIds):
    """The same keys in each run."""

    def __init__(self) -> None:
        self._chance = random.Random(1)

    def hex(self, length: int) -> str:
        return f"{self._chance.getrandbits(4 * length):0{length}x}"


def body(data: bytes) -> Body:
    digest = Digest(len(data), hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest())
    return data, digest


def group(number: int) -> list[Body]:
    chance = random.Random(number)
    return [body(chance.randbytes(size)) for size in SIZES]


async def different(store: Blobs, keys: Sequence[str], bodies: Sequence[Body]) -> list[str]:
    """The keys that do not show the bytes of their body."""
    return [key for key, (_, digest) in zip(keys, bodies, strict=True) if await store.digest(key) != digest]


def main(root: str, pack_bytes: str, mutant: str = "") -> None:
    store = LocalBlobs(Path(root), ids=SeededIds(), pack_bytes=int(pack_bytes))
    store.open_store()
    if mutant:
        MUTANTS[mutant]()
    asyncio.run(store.ping())  # the threads and a loop exist
    codes, wrong = [], []
    for number in range(GROUPS):
        bodies = group(number)
        try:
            keys = local_of(store).put_group(bodies)
        except UponceError as error:
            codes.append(error.code)
        else:
            print(json.dumps(keys), flush=True)
            while _late:
                _late.pop(0)()
            codes.append("ok")
            wrong += asyncio.run(different(store, keys, bodies))

    async def count() -> int:
        return len([blob async for blob in store.published()])

    listed = asyncio.run(count())
    store.close()
    print(json.dumps(asdict(Outcome(codes, wrong, listed, len(descriptors(Path(root)))))))


if __name__ == "__main__":
    main(*sys.argv[1:])
