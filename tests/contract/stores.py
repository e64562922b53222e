"""What the BlobStore suites are written with: back ends to run on, and bytes to run with."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from _pytest.mark.structures import ParameterSet

from tests.stores import azurite, seaweedfs
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.bucket import Bucket
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.store.objects import BucketBlobs
from uponce.adapters.system import RandomIds
from uponce.app.ports import BlobStore

SECONDS = 60


@contextmanager
def local(folder: Path) -> Iterator[Blobs]:
    store = LocalBlobs(folder / "media", ids=RandomIds())
    store.open_store()
    try:
        yield store
    finally:
        store.close()


class PackedBlobs(LocalBlobs):
    """The suites put whole blobs into its packs, of any size."""


@contextmanager
def packed(folder: Path) -> Iterator[PackedBlobs]:
    store = PackedBlobs(folder / "media", ids=RandomIds(), pack_bytes=64 * 1024 * 1024)
    store.open_store()
    try:
        yield store
    finally:
        store.close()


def local_of(blobs: Blobs) -> LocalBlobs:
    """Return the blobs, which are in a folder."""
    assert isinstance(blobs, LocalBlobs)
    return blobs


def s3(folder: Path) -> AbstractContextManager[BlobStore]:
    server = seaweedfs.shared()
    return objects(server.fresh_url(), server.environment, folder)


def azure(folder: Path) -> AbstractContextManager[BlobStore]:
    server = azurite.shared()
    return objects(server.fresh_url(), server.environment, folder)


@contextmanager
def objects(url: str, environment: dict[str, str], folder: Path, *, seconds: int = SECONDS) -> Iterator[Blobs]:
    store = opened_objects(url, environment, folder, seconds=seconds)
    try:
        yield store
    finally:
        store.close()


def bucket_of(url: str, environment: Mapping[str, str], seconds: int) -> Bucket:
    with patch.dict(os.environ, environment):  # read once, when the bucket is made
        return Bucket(url, seconds)


def opened_objects(url: str, environment: Mapping[str, str], folder: Path, *, seconds: int) -> Blobs:
    """The caller must close it."""
    store = BucketBlobs(
        bucket_of(url, environment, seconds), folder / "spool", ids=RandomIds(), seconds=seconds, uploads=16
    )
    store.open_store()
    return store


@dataclass(frozen=True, slots=True)
class Kind:
    """A back end; `keeps_open`: a blob that is deleted while it is open stays readable."""

    opened: Callable[[Path], AbstractContextManager[BlobStore]]
    keeps_open: bool = False


STORES = {"local": Kind(local, keeps_open=True), "s3": Kind(s3), "azure": Kind(azure)}


def back_ends(names: Iterable[str]) -> list[ParameterSet]:
    """These back ends as parameters. Azure's emulator needs Node and starts slowly: `make proof` runs it."""
    return [pytest.param(name, marks=pytest.mark.proof if "azure" in name else ()) for name in sorted(names)]
