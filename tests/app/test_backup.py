"""What a restore makes of a backup, at any moment of it, on purpose."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.databases import run
from tests.world import PNG, START, MovableClock, World, assert_accepted
from uponce.adapters.archive import Archive
from uponce.adapters.clock import RandomIds
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.store.local import local_blobs
from uponce.app.backup import BackedUp, back_up, restore
from uponce.app.copy_media import Copying

SKEW = 300
SECRETS = AesSecretBox(bytes(32))

Progress = Callable[..., None]


def ignore(*progress: object) -> None: ...


class SlowClock(MovableClock):
    """Each report of progress comes an hour later."""

    def an_hour_later(self, *progress: object) -> None:
        self.time += 3600


@dataclass
class Box:
    """A server with a backup, and the data folder of another one, which has no database yet."""

    world: World
    folder: Path
    data: Path

    @property
    def database(self) -> Path:
        return self.data / "uponce.db"

    def back_up(self) -> BackedUp:
        archive = Archive(self.folder, database=self.world.path, secret_key=None)
        with archive.writing():
            work = back_up(self.world.services, SECRETS, archive, "1", on_pages=ignore, on_media=ignore)
            return run(work)

    def restore(
        self, storage: Path | None = None, clock: MovableClock | None = None, progress: Progress = ignore
    ) -> tuple[Copying, int]:
        archive, clock = Archive(self.folder, database=self.database, secret_key=None), clock or MovableClock()
        with archive.reading(SECRETS, clock.now()) as snapshot:
            blobs = local_blobs(storage or self.data / "media", ids=RandomIds())
            return run(restore(archive, snapshot, blobs, clock, SKEW, on_pages=progress, on_media=progress))


@pytest.fixture
def box(tmp_path: Path, world: World) -> Box:
    assert_accepted(world.upload(world.sign({"public_id": "first"}), PNG))
    box = Box(world, tmp_path / "backup", tmp_path / "restored")
    box.back_up()
    return box


def test_the_fence_of_a_restore_counts_from_its_end(box: Box) -> None:
    """The old server may take uploads while the media and the database are copied, which can last for hours."""
    clock = SlowClock()
    _, watermark = box.restore(clock=clock, progress=clock.an_hour_later)
    assert clock.time >= START + 2 * 3600
    assert watermark == clock.time + SKEW
