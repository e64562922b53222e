"""Two servers in one process that share a database and a bucket, each with its own disk."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tests.contract.stores import SECONDS, opened_objects
from tests.stores import seaweedfs
from tests.stores.sick import SickStore
from tests.world import World
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.parts import ObjectParts
from uponce.app.fsck import FsckFinding, fsck
from uponce.app.ports import StoredBlob
from uponce.app.sweep import Swept, sweep
from uponce.core.policy import Limits


@dataclass
class Pair:
    """`one` and `two`; the second one's way to the store may be ill."""

    folder: Path
    url: str
    limits: Limits
    environment: dict[str, str]
    one: World
    two: World

    @property
    def both(self) -> tuple[World, World]:
        return self.one, self.two

    def dealt(self, number: int) -> World:
        return self.both[number % 2]

    @property
    def blobs(self) -> Blobs:
        return self.one.blobs

    @property
    def parts(self) -> ObjectParts:
        assert isinstance(self.blobs.parts, ObjectParts)
        return self.blobs.parts

    def objects(self) -> list[StoredBlob]:
        """Of series."""

        async def collect() -> list[StoredBlob]:
            return [part async for part in self.parts.listed()]

        return asyncio.run(collect())

    def published(self) -> set[str]:
        async def collect() -> set[str]:
            return {blob.key async for blob in self.blobs.published()}

        return asyncio.run(collect())

    def spooled(self) -> list[Path]:
        return [path for world in self.both for path in world.blobs.folder.iterdir()]

    def is_clean(self) -> bool:
        """Nothing is left of any series."""
        rows = [self.one.sql(f"SELECT count(*) FROM {name}") for name in ("series", "series_parts")]
        return not (any(rows) or self.objects() or self.spooled())

    def sweep(self, grace: float = 0) -> list[Swept]:
        return [asyncio.run(sweep(world.services, grace_seconds=grace, audit_seconds=10**6)) for world in self.both]

    def findings(self, grace: float = 0) -> list[FsckFinding]:
        async def collect() -> list[FsckFinding]:
            report = await fsck(self.one.services, grace_seconds=grace, audit_seconds=10**6, settle_seconds=0)
            return list(chain.from_iterable(report.findings.values()))

        return asyncio.run(collect())


@contextmanager
def pair(folder: Path, limits: Limits, proxy: SickStore | None = None) -> Iterator[Pair]:
    server = seaweedfs.shared()
    url, environment = server.fresh_url(), server.environment
    ways = [environment, environment | ({"AWS_ENDPOINT_URL": proxy.endpoint} if proxy else {})]
    with ExitStack() as stack:
        worlds = []
        for name, way in zip(("one", "two"), ways, strict=True):
            blobs = opened_objects(url, way, folder / name, seconds=SECONDS)
            worlds.append(World(folder, limits=limits, blobs=blobs))
            stack.callback(worlds[-1].close)
        two = worlds[1]
        two._signed = 10**6  # its nonces are others
        yield Pair(folder, url, limits, environment, worlds[0], two)
