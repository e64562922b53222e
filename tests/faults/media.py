"""The bytes of a store, past all code of the server: files of a folder, or objects of a bucket."""

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

_READERS = 8


class Media(Protocol):
    def keys(self) -> frozenset[str]:
        """Of all blobs."""
        ...

    def sums(self) -> Mapping[str, str]:
        """Key → the SHA-256 of the bytes that lie there."""
        ...

    def parts(self) -> Mapping[tuple[str, str], str]:
        """Of uploads in several requests: the key of the upload's bytes and a name → the SHA-256 of what lies there."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path

    def keys(self) -> frozenset[str]:
        return frozenset(path.name for path in self._files())

    def sums(self) -> Mapping[str, str]:
        return {path.name: _sha256(path) for path in self._files()}

    def parts(self) -> Mapping[tuple[str, str], str]:
        return {}

    def _files(self) -> Iterator[Path]:
        return (self.path / "blobs").glob("*/*")


class Bucket:
    """`environment` is how a server gets to it."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        access = {name.lower(): value for name, value in environment.items() if name.startswith("AWS_")}
        options = {"client_options": {"allow_http": True}}
        self._store = S3Store(parts.netloc, prefix=parts.path.strip("/"), config=access, **options)  # type: ignore[arg-type]

    def keys(self) -> frozenset[str]:
        return frozenset(name.rpartition("/")[2] for name in self._names("blobs"))

    def sums(self) -> Mapping[str, str]:
        return {name.rpartition("/")[2]: sha256 for name, sha256 in self._read("blobs").items()}

    def parts(self) -> Mapping[tuple[str, str], str]:
        found = ((name.split("/"), sha256) for name, sha256 in self._read("parts").items())
        return {(key, name): sha256 for (_, key, name), sha256 in found}

    def _read(self, folder: str) -> dict[str, str]:
        def read(name: str) -> tuple[str, str]:
            data = bytes(obstore.get(self._store, name).bytes())
            return name, hashlib.sha256(data).hexdigest()

        with ThreadPoolExecutor(_READERS) as pool:
            return dict(pool.map(read, self._names(folder)))

    def _names(self, folder: str) -> list[str]:
        return [meta["path"] for batch in obstore.list(self._store, folder) for meta in batch]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
