"""The bytes of a store, past all code of the server: files of a folder, or objects of a bucket."""

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

_READERS = 8
_PAGE, _RECORD = 4096, struct.Struct(">8s32sQQ32sI")  # of packs: magic, key, seconds, size, SHA-256, CRC-32


class Media(Protocol):
    def add(self, key: str, data: bytes) -> None:
        """Store a blob that no row names."""
        ...

    def keys(self) -> frozenset[str]:
        """Return the keys of all blobs."""
        ...

    def sums(self) -> Mapping[str, str]:
        """Return key → the SHA-256 of the bytes that are stored there."""
        ...

    def parts(self) -> Mapping[tuple[str, str], str]:
        """Return the parts of uploads in several requests: key of the upload's bytes and name → SHA-256 of the part."""
        ...


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path

    def add(self, key: str, data: bytes) -> None:
        folder = self.path / "blobs" / key[:2]
        folder.mkdir(exist_ok=True)
        (folder / key).write_bytes(data)

    def keys(self) -> frozenset[str]:
        return frozenset(path.name for path in self._files()) | self._packed().keys()

    def sums(self) -> Mapping[str, str]:
        found = ((path.name, _sha256(path)) for path in self._files())
        return {name: sha256 for name, sha256 in found if sha256} | self._packed()

    def parts(self) -> Mapping[tuple[str, str], str]:
        return {}

    def _files(self) -> Iterator[Path]:
        return (self.path / "blobs").glob("*/*")

    def _packed(self) -> dict[str, str]:
        """Every record that begins on a page of a pack, also inside of another one: no client sends such bytes here."""
        found = {}
        for path in (self.path / "packs").glob("*"):
            data = path.read_bytes()
            for page in range(0, len(data), _PAGE):
                magic, key, _, size, _, _ = _RECORD.unpack_from(data.ljust(page + _RECORD.size, b"\0"), page)
                start = page + _RECORD.size
                if magic == b"uponce1\n" and key.startswith(f"p{path.name}{page // _PAGE:05x}".encode()):
                    found[key.decode()] = hashlib.sha256(data[start : start + size]).hexdigest()
        return found


class Bucket:
    """`environment` is how a server gets to it."""

    def __init__(self, url: str, environment: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        access = {name.lower(): value for name, value in environment.items() if name.startswith("AWS_")}
        options = {"client_options": {"allow_http": True}}
        self._store = S3Store(parts.netloc, prefix=parts.path.strip("/"), config=access, **options)  # type: ignore[arg-type]

    def add(self, key: str, data: bytes) -> None:
        obstore.put(self._store, f"blobs/{key[:2]}/{key}", data)

    def keys(self) -> frozenset[str]:
        return frozenset(name.rpartition("/")[2] for name in self._names("blobs"))

    def sums(self) -> Mapping[str, str]:
        return {name.rpartition("/")[2]: sha256 for name, sha256 in self._read("blobs").items()}

    def parts(self) -> Mapping[tuple[str, str], str]:
        found = ((name.split("/"), sha256) for name, sha256 in self._read("parts").items())
        return {(key, name): sha256 for (_, key, name), sha256 in found}

    def _read(self, folder: str) -> dict[str, str]:
        def read(name: str) -> Sequence[tuple[str, str]]:
            try:
                data = bytes(obstore.get(self._store, name).bytes())
            except FileNotFoundError:  # a server deletes what no row names after its answer, so also after the listing
                return ()
            return [(name, hashlib.sha256(data).hexdigest())]

        with ThreadPoolExecutor(_READERS) as pool:
            return dict(chain.from_iterable(pool.map(read, self._names(folder))))

    def _names(self, folder: str) -> list[str]:
        return [meta["path"] for batch in obstore.list(self._store, folder) for meta in batch]


def _sha256(path: Path) -> str:
    """Return nothing for a file that a server has deleted after the listing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
