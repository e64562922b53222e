"""What a server does over a line to an S3 store that may break, and what must be true afterwards."""

from pathlib import Path
from unittest.mock import patch

from proof.faults.broken_line import Chunked, Deletion, Overwrite, Port, Race, Repeatable, Stage, Sweep, Upload
from proof.faults.store_wire import StoreWire
from proof.faults.tally import Tally
from tests.asgi import TornAnswer
from tests.chunks import noise
from tests.contract.stores import opened_objects
from tests.postgres import Postgres
from tests.stores.seaweedfs import SeaweedFS
from uponce.adapters.store import bucket
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.objects import ObjectBlob

_SECONDS = 30
_BLOCK_BYTES = 1000


class StoreStage(Stage):
    """The line to the store may break."""

    wire: StoreWire
    part = "blobs"
    refusal = "storage_unavailable"
    honest = frozenset({"ok", "storage_unavailable"})

    def __init__(self, folder: Path, postgres: Postgres, store: SeaweedFS) -> None:
        self._folder, self._store, self._url = folder, store, store.fresh_url()
        media = store.environment | {"UPONCE_STORAGE": self._url}
        super().__init__(folder, postgres, media, self._blobs_at(store.endpoint))
        self.wire = StoreWire(store.endpoint)

    @property
    def may_leave(self) -> int:
        """Return 1 if an object whose reply was lost cannot be deleted either."""
        return 1 if self.cut and self.cut.lasting else 0

    def reached(self) -> Port:
        return self._blobs_at(self.wire.endpoint)

    def close(self) -> None:
        self.wire.close()
        super().close()

    def _blobs_at(self, endpoint: str) -> Blobs:
        environment = self._store.environment | {"AWS_ENDPOINT_URL": endpoint}
        return opened_objects(self._url, environment, self._folder, seconds=_SECONDS)


class Large(Upload):
    """an upload that is sent to the store in parts"""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.data = noise(bucket.PART_BYTES + 1000, seed=hash(self.name))


class Delivery(Upload):
    """a delivery in blocks"""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.data = noise(3 * _BLOCK_BYTES, seed=hash(self.name))
        assert self.send(self.fields, self.data).code == "ok"

    def act(self) -> None:
        path = f"/{self.stage.world.browser.cloud}/raw/upload/{self.name}"
        try:
            with patch.multiple(ObjectBlob, first_bytes=_BLOCK_BYTES, block_bytes=_BLOCK_BYTES):
                answer = self.stage.world.get(path)
        except TornAnswer:
            self.told = "torn"
            return
        whole = answer.status == 200 and answer.body == self.data
        self.told = "ok" if whole else "other bytes" if answer.status == 200 else answer.code

    def judge(self, tally: Tally) -> None:
        tally.counts[f"told {self.told}"] += 1
        tally.expect(self.told in self.stage.honest | {"torn"}, "strange answers", self.told)
        self.keep(tally)


STORIES: tuple[type[Upload], ...] = (Upload, Overwrite, Repeatable, Chunked, Large, Race, Deletion, Sweep, Delivery)
