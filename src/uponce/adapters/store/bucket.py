"""A bucket of an object store, through obstore: S3 and stores with its protocol, Google's, Azure's.

All of it blocks and is called in threads. obstore's asynchronous calls would abort the interpreter if it exits during a
call. Every failure is StorageUnavailable.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from math import ceil
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from uponce.adapters.files import blocks_of
from uponce.adapters.spool.hashes import new_md5, sha256_of
from uponce.adapters.store.profiles import credentials_of_profile
from uponce.core.errors import SettingRefused, StorageUnavailable
from uponce.core.formats import BINARY
from uponce.core.spans import Span

SCHEMES = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}

PART_BYTES = 5 * 1024 * 1024  # the least that S3 accepts, except for the last part
_MOST_PARTS = 10_000  # S3's limit
_PARTS_AT_ONCE = 2  # with the part that fills, and what malloc keeps: 16 to 26 MiB an upload
_READ_BYTES = 4 * 1024 * 1024
_CONNECT_SECONDS = 5
_RETRIES = 3
_LIST_BATCH = 1000
_DETAIL = 400

_CURES = (
    ("169.254.169.254", "No credentials were found: set them in the environment, or give the machine a role."),
    ("NoSuchBucket", "There is no such bucket: create it, or correct UPONCE_STORAGE."),
    ("ContainerNotFound", "There is no such container: create it, or correct UPONCE_STORAGE."),
    ("PermanentRedirect", "The bucket is in another region: set AWS_REGION."),
    ("AuthorizationHeaderMalformed", "The bucket is in another region: set AWS_REGION."),
    ("RequestTimeTooSkewed", "The clock of this machine is wrong: set it, for example by NTP."),
    ("invalid path", "Another program made this object. Delete it: `uponce fsck` and sweeps end there."),
)
_UNREACHED = "It cannot be reached: check the endpoint and the network."
_TOO_SLOW = (
    "It took longer than UPONCE_STORAGE_SECONDS. If the line is slow, raise that setting, or lower "
    "UPONCE_STORAGE_UPLOADS, so that fewer uploads share the line."
)
_CONNECTING = re.compile(r"Error\(\s*Connect\b|ConnectError")  # by reqwest, within a look-up or TLS; within TCP
_REFUSED = "Check the credentials, and that they may read, write, list and delete."


class Bucket:
    """A bucket. Its objects have names like paths, below the prefix of the URL."""

    def __init__(self, url: str, seconds: int) -> None:
        """`url` is `s3://bucket/prefix`, `gs://…` or `az://container/prefix`. One request may take `seconds`.

        Everything else, above all credentials, comes from the environment, as obstore reads it, or from the profile
        that the environment names.
        """
        self._ended = threading.Event()
        parts = urlsplit(url)
        known = credentials_of_profile() if parts.scheme == "s3" else None
        try:
            self._store = SCHEMES[parts.scheme](
                parts.netloc,
                prefix=parts.path.strip("/") or None,
                client_options={
                    "allow_http": True,  # only where the operator's endpoint says http://
                    "timeout": timedelta(seconds=seconds),
                    "connect_timeout": timedelta(seconds=min(_CONNECT_SECONDS, seconds / 2)),
                },
                retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=seconds)},
                **({} if known is None else {"credential_provider": known}),
            )
        except (BaseError, ValueError) as error:
            raise SettingRefused(f"UPONCE_STORAGE={url} cannot be used: {explained(error)}") from error

    def end(self) -> None:
        """Let all work of several requests fail at its next one.

        The store removes the parts of incomplete objects, if the process runs until the parts on their way have ended.
        """
        self._ended.set()

    def _until_ended(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            if self._ended.is_set():
                raise _unavailable("the server has stopped")
            yield block

    def upload(self, name: str, descriptor: int, span: Span, media_type: str) -> None:
        """Upload these bytes of a file. On return they are complete and compared.

        After a failure no object is visible, except one whose reply was lost.
        """
        part_bytes = max(PART_BYTES, ceil(span.size / _MOST_PARTS))
        sums = Sums(part_bytes)
        blocks = self._until_ended(sums.over(blocks_of(descriptor, span.start, span.end)))
        attributes = _attributes(media_type)
        with _translated():
            if span.size <= part_bytes:
                put = obstore.put(self._store, name, b"".join(blocks), attributes=attributes, use_multipart=False)
            else:
                put = obstore.put(
                    self._store,
                    name,
                    blocks,
                    attributes=attributes,
                    chunk_size=part_bytes,
                    max_concurrency=_PARTS_AT_ONCE,
                )
        self._compare(name, put["e_tag"], sums.etag(), lambda: blocks_of(descriptor, span.start, span.end), span.size)

    def put(self, name: str, data: bytes, md5: str, media_type: str) -> None:
        """Do the same with bytes in memory, in one request."""
        with _translated():
            put = obstore.put(self._store, name, data, attributes=_attributes(media_type), use_multipart=False)
        self._compare(name, put["e_tag"], md5, lambda: [data], len(data))

    def _compare(
        self, name: str, shown: str | None, etag: str, blocks: Callable[[], Iterable[bytes]], size: int
    ) -> None:
        """Compare the object with the bytes: by its MD5, which most stores have shown, or by reading it back."""
        if (shown or "").strip('"') == etag:
            return
        with _translated():
            meta = obstore.head(self._store, name)
        if meta["size"] == size and (meta["e_tag"] or "").strip('"') == etag:
            return
        if meta["size"] != size or sha256_of(self.blocks(name, size)) != sha256_of(blocks()):
            raise _unavailable(f"{name} is not what was uploaded: {meta}")

    def size_of(self, name: str) -> int | None:
        """Return the size of an object. Return None without such an object or bucket: a HEAD does not show which."""
        with _translated():
            try:
                return obstore.head(self._store, name)["size"]
            except FileNotFoundError:
                return None

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return at most `length` bytes from `offset`. The object must have at least one byte there."""
        with _translated():
            return bytes(obstore.get_range(self._store, name, start=offset, length=length))

    def blocks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield all bytes of an object of this size."""
        starts = range(0, size, _READ_BYTES)
        return self._until_ended(self.read(name, start, min(_READ_BYTES, size - start)) for start in starts)

    def text_of(self, name: str) -> str | None:
        """Return a short object, or None if it does not exist."""
        with _translated():
            try:
                return bytes(obstore.get(self._store, name).bytes()).decode(errors="replace")
            except FileNotFoundError:
                return None

    def put_text(self, name: str, text: str, *, replace: bool) -> None:
        """Write a short object. An object that exists stays, unless `replace`."""
        with _translated(), suppress(AlreadyExistsError):
            try:
                obstore.put(self._store, name, text.encode(), mode="overwrite" if replace else "create")
            except (GenericError, NotImplementedError) as error:
                if replace or "NotImplemented" not in str(error):
                    raise
                # Backblaze B2 refuses a write that must not replace. So does obstore with AWS_CONDITIONAL_PUT=disabled.
                if self.text_of(name) is None:
                    obstore.put(self._store, name, text.encode())

    def listing(self, folder: str, after: str = "") -> Iterator[tuple[str, int, float]]:
        """Yield name, size and age of all objects below a folder whose name sorts after a text, in no order."""
        now = datetime.now(UTC)
        with _translated():
            for batch in obstore.list(self._store, folder, offset=after or None, chunk_size=_LIST_BATCH):
                for meta in batch:
                    yield meta["path"], meta["size"], (now - meta["last_modified"]).total_seconds()

    def delete(self, *names: str) -> None:
        """Delete the objects. Does nothing for those that do not exist."""
        for name in names:
            # Some stores report an object that does not exist.
            with _translated(), suppress(FileNotFoundError):
                obstore.delete(self._store, name)

    def delete_below(self, folder: str) -> None:
        """Delete all objects below a folder, a thousand in a request."""
        with _translated():
            for batch in obstore.list(self._store, folder, chunk_size=_LIST_BATCH):
                names = [meta["path"] for meta in batch]
                try:
                    obstore.delete(self._store, names)
                except (BaseError, FileNotFoundError):
                    # Another server deletes them too, and some stores report that. Others delete one object a request.
                    self.delete(*names)

    def signed_url(self, name: str, seconds: int) -> str:
        """Return a URL by which any client may read the object for so many seconds."""
        with _translated():
            return obstore.sign(self._store, "GET", name, timedelta(seconds=seconds))


def _attributes(media_type: str) -> dict[str, str]:
    attributes = {"Content-Type": media_type}
    return attributes | {"Content-Disposition": "attachment"} if media_type == BINARY else attributes


class Sums:
    """The MD5 of each part of a stream. S3 and its kin make the entity tag from them."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._parts = [new_md5()]
        self._room = part_bytes

    def over(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self._add(memoryview(block))
            yield block

    def _add(self, data: memoryview) -> None:
        while data:
            if not self._room:
                self._parts.append(new_md5())
                self._room = self._part_bytes
            piece, data = data[: self._room], data[self._room :]
            self._parts[-1].update(piece)
            self._room -= len(piece)

    def etag(self) -> str:
        """Return the MD5 of the whole, or for several parts the MD5 of their MD5s, with their number."""
        if len(self._parts) == 1:
            return self._parts[0].hexdigest()
        joined = new_md5(b"".join(part.digest() for part in self._parts))
        return f"{joined.hexdigest()}-{len(self._parts)}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        raise _unavailable(explained(error)) from error


def _unavailable(detail: str) -> StorageUnavailable:
    return StorageUnavailable(
        "The server's storage cannot be used now. Nothing was stored. Send the request again.",
        detail=detail,
    )


def explained(error: Exception) -> str:
    """Return what the store reported, and the cure."""
    text, _, debug = str(error).partition("Debug source:")
    said = " ".join(text.split())
    cure = next((cure for mark, cure in _CURES if mark in said), "")
    # The text itself does not name the kind.
    if not cure and "kind: Timeout" in debug and not _CONNECTING.search(debug):
        cure = _TOO_SLOW
    if not cure and "error sending request" in said:
        cure = _UNREACHED
    if not cure and isinstance(error, PermissionDeniedError | UnauthenticatedError):
        cure = _REFUSED
    return f"{said[:_DETAIL]} {cure}".strip()
