"""The connection to an S3 store cut at every request of it, as `wire` does to PostgreSQL's.

The request is lost, or the reply, once or for good. Every answer is true, and a refused upload spends nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from proof.faults.broken_line import Stage, Upload
from proof.faults.broken_store import STORIES, StoreStage
from proof.faults.campaigns.wire import cuts, each, quiet, strikes
from proof.faults.control import until_red
from proof.faults.report import Report
from proof.faults.tally import Tally
from tests import postgres
from tests.stores import seaweedfs
from uponce.adapters.store.bucket import Bucket
from uponce.core.errors import StorageUnavailable

_upload = Bucket.upload


def run(seconds: float, seed: int) -> Report:
    return strikes("wire_s3", seconds, seed, on_store, STORIES, control)


def control(folder: Path, tally: Tally) -> None:
    """Find a server that does not check that the store took the bytes: its answer is untrue, and a row has no bytes."""
    with on_store(folder) as stage, patch.object(Bucket, "upload", careless):
        every = each(stage, cuts(stage, Upload), "wrong answers")
        until_red(tally, "untrue answers when a failed upload counts as done", every)


def careless(*arguments: Any) -> None:
    with suppress(StorageUnavailable):
        _upload(*arguments)


@contextmanager
def on_store(folder: Path) -> Iterator[Stage]:
    folder.mkdir(parents=True)
    with quiet(StoreStage(folder, postgres.shared(), seaweedfs.shared())) as stage:
        yield stage
