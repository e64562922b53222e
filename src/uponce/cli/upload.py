"""`uponce upload`: send each file under its own signature, streamed, with a progress bar.

The command tries again if no answer arrives. The Idempotency-Key lets the server repeat a lost answer, so it stores
nothing twice.
"""

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, BinaryIO

import msgspec
import typer
import urllib3
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from uponce.adapters.files import exists
from uponce.adapters.system import RandomIds, SystemClock
from uponce.app.authorise import read_for
from uponce.app.sign import grant_id, mint
from uponce.cli.credentials import Credentials, find_credentials
from uponce.cli.options import Data, Json, Kind, SigningKey, Url, parse_pairs, print_json, readable, without_signature
from uponce.cli.sign import upload_url
from uponce.core.errors import NotFound, printable
from uponce.core.formats import FORMATS, canonical_format
from uponce.core.naming import Naming, split_filename
from uponce.core.parameters import Call
from uponce.core.signature import collect, refuse_empty_limits
from uponce.core.values import ResourceType

_BLOCK = 1024 * 1024
_RETRIES = urllib3.Retry(
    total=5,
    connect=3,
    allowed_methods=None,
    status_forcelist=(502, 503, 504),
    backoff_factor=0.5,
    raise_on_status=False,
)
logging.getLogger("urllib3").setLevel(logging.ERROR)  # it would print a line for each retry
_NOT_THERE = "Check that the server runs there, or use --url."
_TIMEOUT = urllib3.Timeout(connect=10, read=300)


def run(
    files: list[str] = typer.Argument(metavar="FILE", help="Files to upload."),
    parameter: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="Upload parameter to sign with each file. Repeat the option for more."
    ),
    data: Data = None,
    url: Url = None,
    key: SigningKey = None,
    resource_type: Kind = "auto",
    as_json: Json = False,
) -> None:
    """Sign and upload files, each with its own signature.

    Set CLOUDINARY_URL to upload to a server on another machine. CLOUDINARY_URL does not count if --data or UPONCE_DATA
    names a data folder. Exit code 1 if a file was refused; the others are stored. If one file would replace another by
    its name, no file is sent.
    """
    paths = [Path(file) for file in files]
    missing = next((path for path in paths if not exists(path, S_ISREG)), None)
    if missing is not None and exists(missing, S_ISDIR):
        raise NotFound(f"{readable(missing)} is a folder. Name the files in it.")
    if missing is not None:
        raise NotFound(f"There is no file {readable(missing)}.")
    credentials = find_credentials(data, key, url)
    signed = parse_pairs(parameter)
    refuse_empty_limits(signed)
    if len(paths) > 1 and "public_id" in signed:
        raise typer.BadParameter("With a public_id, each file would replace the one before. Upload one file at a time.")
    _refuse_one_name(
        paths, read_for(credentials.key.upstream, collect(signed.items()), Call.UPLOAD).naming, resource_type
    )
    answers: list[dict[str, Any]] = []
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            for path in paths:
                task = progress.add_task(readable(path.name), total=None)
                answers.append(_upload(credentials, path, signed, resource_type, progress, task))
    finally:  # after Ctrl-C too: the server has stored these files
        if answers:
            _print(paths, answers, as_json)
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


def _refuse_one_name(paths: Sequence[Path], naming: Naming, resource_type: str) -> None:
    """Raise a usage error for a file that would replace one before it. The extension shows a file's likely kind."""
    seen: dict[tuple[ResourceType, str], Path] = {}
    for number, path in enumerate(paths):
        filename = readable(path.name)
        known = FORMATS.get(canonical_format(split_filename(filename)[1]))
        likely = known.kind if known else ResourceType.RAW
        kind = likely if resource_type == "auto" else ResourceType(resource_type)
        # No filename has a `/`. So a name that the server makes at random is another one for each file.
        name = naming.bare(kind, filename, f"/{number}", f"/{number}")
        before = seen.setdefault((kind, name), path)
        if before is not path:
            raise typer.BadParameter(
                f"{readable(path)} would replace {readable(before)}: both get the name {printable(name)}. Set "
                "unique_filename=1, or upload one file at a time, each with its own public_id."
            )


def _print(paths: Sequence[Path], answers: Sequence[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(answers)
        return
    for path, answer in zip(paths, answers, strict=False):
        said = printable(str(answer.get("secure_url") or answer["error"]["message"]))
        typer.echo(f"{readable(path)}: {said}" if "error" in answer else said, err="error" in answer)


class _BecameShorter(Exception):
    """The file has less bytes than when it was opened. It is no OSError, after which urllib3 would try again."""


class _Form:
    """A multipart body with one file, read from the disk while it is sent. A retry reads it again from the start."""

    def __init__(self, fields: Mapping[str, str], filename: str, file: BinaryIO, sent: Callable[[int], object]) -> None:
        whole, self.content_type = urllib3.encode_multipart_formdata(
            [*fields.items(), ("file", (filename, b"", "application/octet-stream"))]
        )
        boundary = self.content_type.partition("boundary=")[2]
        tail = f"\r\n--{boundary}--\r\n".encode()
        parts = (io.BytesIO(whole.removesuffix(tail)), file, io.BytesIO(tail))
        self._parts = [(part, part.seek(0, io.SEEK_END)) for part in parts]
        self._sent = sent
        self.length = sum(length for _, length in self._parts)
        self.was_sent = False  # the server may have stored the file
        self.seek(0)

    def read(self, size: int) -> bytes:
        data = b""
        for part, length in self._parts:
            left = length - part.tell()  # a log may grow
            if left > 0:
                data = part.read(min(size, left))
                if not data:
                    raise _BecameShorter
                break
        done = self.tell()
        self.was_sent = self.was_sent or done == self.length
        self._sent(done)
        return data

    def tell(self) -> int:
        return sum(part.tell() for part, _ in self._parts)

    def seek(self, start: int) -> None:
        """Go back to the start, where every retry begins."""
        assert start == 0
        for part, _ in self._parts:
            part.seek(0)


def _upload(
    credentials: Credentials, path: Path, signed: dict[str, str], resource_type: str, progress: Progress, task: TaskID
) -> dict[str, Any]:
    """Return the server's answer, or an error of the same form."""
    fields = mint(credentials.key, signed, clock=SystemClock(), ids=RandomIds())
    try:
        with path.open("rb") as file:
            form = _Form(fields, readable(path.name), file, lambda done: progress.update(task, completed=done))
            progress.update(task, total=form.length)
            return _send(credentials, fields, form, resource_type)
    except OSError as error:
        return _failed(f"cannot be read: {error.strerror or error}")
    except _BecameShorter:
        return _failed("became shorter while it was sent. Nothing was stored. Upload it again.")


def _send(credentials: Credentials, fields: Mapping[str, str], form: _Form, resource_type: str) -> dict[str, Any]:
    headers = {
        "content-type": form.content_type,
        "content-length": str(form.length),
        "idempotency-key": RandomIds().hex(32),
    }
    try:
        with urllib3.PoolManager(blocksize=_BLOCK) as http:
            response = http.request(
                "POST",
                upload_url(credentials.base, credentials.key.cloud, resource_type),
                body=form,  # type: ignore[arg-type]  # urllib3 calls read, tell and seek alone
                headers=headers,
                retries=_RETRIES,
                redirect=False,  # signed fields go to no other address than the given one
                timeout=_TIMEOUT,
            )
    except urllib3.exceptions.HTTPError as error:
        reason = str(getattr(error, "reason", error)).rpartition(": ")[2]
        cure = _may_be_stored(credentials, fields) if form.was_sent else _NOT_THERE
        return _failed(f"No answer from {credentials.base}: {reason}. {cure}")
    if target := response.get_redirect_location():
        return _failed(f"{credentials.base} redirects to {target}. Use that server in CLOUDINARY_URL, or in --url.")
    match _decoded(response.data):
        case {"secure_url": _} as answer:
            return answer
        case {"error": {"message": str(message), **rest}}:
            return {"error": {"message": without_signature(message), **rest}}
    is_in_between = form.was_sent and response.status in _RETRIES.status_forcelist
    cure = _may_be_stored(credentials, fields) if is_in_between else "Check the address."
    return _failed(f"{credentials.base} answers HTTP {response.status}, but not as uponce does. {cure}")


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return {}
    return answer


def _may_be_stored(credentials: Credentials, fields: Mapping[str, str]) -> str:
    """Return what the user may do after a lost answer. Another run would sign again, and store a second asset."""
    return (
        "The file may be stored. Before you upload it again, ask on the server: "
        f"uponce signatures show {grant_id(credentials.key, fields)}"
    )


def _failed(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}
