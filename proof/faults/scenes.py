"""What the kill points strike: a folder to begin with, a step that runs on a copy of it, and what must be true then."""

import asyncio
import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from proof.faults import one_arrival, one_upload
from proof.faults.audit import Receipt, count
from proof.faults.one_step import delete
from proof.faults.one_upload import FIRST, SECOND, THIRD, ask_again, services_of, try_again
from proof.faults.operator import settings
from proof.faults.strace import STRACE
from uponce.adapters.system import RandomIds
from uponce.app.manage_keys import set_up
from uponce.app.owner import claim_storage
from uponce.app.ports import Committed
from uponce.app.services import Services
from uponce.app.sign import mint
from uponce.core.values import ApiKey
from uponce.wiring import opened

ROOT = Path(__file__).parents[2]
UPLOAD, ARRIVAL, STEP = "proof.faults.one_upload", "proof.faults.one_arrival", "proof.faults.one_step"
KEY = "an-idempotency-key"

Fields = dict[str, str]
Send = Callable[..., Coroutine[Any, Any, Committed]]
Judge = Callable[["Scene", Path, str], Iterator[str]]
"""(scene, folder after recovery, what was acknowledged) → one sentence for each broken promise."""


class Point(NamedTuple):
    """Before the `number`-th `call` on `path`, which is relative to the data folder."""

    path: str
    call: str
    number: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A folder to begin with, what runs on a copy of it, and what must be true afterwards in any case.

    `fields` are the signed ones that are tried after it. `promised` is the digest of the asset that is acknowledged.
    `assets` is the number of assets at the end. `blind` are the findings of the audit that mean nothing here.
    """

    name: str
    origin: Path
    fields: Fields
    command: tuple[str, ...]
    judge: Judge
    promised: str = ""
    assets: int = 1
    blind: tuple[str, ...] = ()

    def lay_out(self, where: Path) -> Path:
        shutil.rmtree(where, ignore_errors=True)
        return Path(shutil.copytree(self.origin, where))

    def run(self, data_dir: Path, paths: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
        watched = [part for path in paths for part in ("-P", str(data_dir / path))]
        module, *arguments = self.command
        return subprocess.run(
            [*STRACE, *watched, *options, sys.executable, "-m", module, str(data_dir), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def kill_at(self, data_dir: Path, point: Point) -> str:
        """Return what was acknowledged before the kill."""
        inject = f"inject={point.call}:signal=KILL:when={point.number}"
        outcome = self.run(self.lay_out(data_dir), [point.path], "-e", inject, "-o", "/dev/null")
        assert outcome.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{point} was not reached: {outcome}"
        return outcome.stdout.strip()

    def receipts(self, acknowledged: str) -> list[Receipt]:
        is_promised = acknowledged and self.promised
        return [Receipt(self.fields["public_id"], acknowledged, self.promised)] if is_promised else []


def uploading(folder: Path) -> Scene:
    fields, _ = origin_in(folder, "dog")
    return Scene("an upload", folder, fields, (UPLOAD, json.dumps(fields)), _judge_upload, digest(SECOND), 2)


def repeating(folder: Path, module: str = UPLOAD) -> Scene:
    fields, _ = origin_in(folder, "dog")
    command = (module, json.dumps(fields), KEY)
    return Scene("an upload that is repeated", folder, fields, command, _judge_repeat, digest(SECOND), 2)


def overwriting(folder: Path, module: str = UPLOAD) -> Scene:
    fields, _ = origin_in(folder, "cat")
    return Scene("an overwrite", folder, fields, (module, json.dumps(fields)), _judge_upload, digest(SECOND))


def grouping(folder: Path, module: str = ARRIVAL) -> Scene:
    """Return an overwrite in memory, of a blob in a pack."""
    fields, _ = origin_in(folder, "cat", one_arrival.send)
    return Scene("an overwrite in a group", folder, fields, (module, json.dumps(fields)), _judge_upload, digest(SECOND))


def sweeping(folder: Path) -> Scene:
    """After a kill between the commit of an overwrite and the deletion of the replaced bytes."""
    crashed = folder.with_name(f"{folder.name}-crashed")
    scene = overwriting(folder)
    (replaced,) = (str(path.relative_to(folder)) for path in folder.glob("media/blobs/*/*"))
    scene.kill_at(crashed, Point(replaced, "unlink", 1))
    return Scene("a sweep", crashed, scene.fields, (UPLOAD,), _judge_upload, digest(SECOND))


def revoking(folder: Path) -> Scene:
    fields, _ = origin_in(folder, "dog")
    return Scene("a revocation", folder, fields, (STEP, "revoke", json.dumps(fields)), _judge_revocation)


def purging(folder: Path) -> Scene:
    """Return a purge of a spent grant whose time is over.

    The audit outlives it, which the auditor would count as double.
    """
    _, spent = origin_in(folder, "cat")
    with closing(sqlite3.connect(folder / "uponce.db", isolation_level=None)) as database:
        database.execute("UPDATE grants SET keep_until = 1")
    return Scene("a purge", folder, spent, (STEP, "purge"), _judge_purge, blind=("double",))


def rotating(folder: Path) -> Scene:
    fields, _ = origin_in(folder, "dog")
    return Scene("a key rotation", folder, fields, (STEP, "rotate", fields["api_key"]), _judge_rotation)


def deleting(folder: Path, module: str = STEP) -> Scene:
    """Return a deletion of the only asset."""
    _, spent = origin_in(folder, "dog")
    return Scene("a delete", folder, spent, (module, "delete", "cat"), _judge_delete, assets=0)


IN_ONE_REQUEST = (uploading, repeating, overwriting, grouping, sweeping, revoking, purging, rotating, deleting)


def origin_in(data_dir: Path, public_id: str, send: Send = one_upload.send) -> tuple[Fields, Fields]:
    """Make a folder with keys and the asset `cat`.

    Return the fields of the next upload, and those of the upload of `cat`.
    """
    with opened(settings(data_dir), create=True) as backend:
        services = services_of(backend, RandomIds())

        async def make() -> tuple[Fields, Fields]:
            await claim_storage(services.database, services.blobs)
            key, _ = await set_up(services, backend.settings.cloud)
            spent = signed_by(services, key, "cat")
            await send(services, key.cloud, spent, FIRST)
            return signed_by(services, key, public_id), spent

        return asyncio.run(make())


def signed_by(services: Services, key: ApiKey, public_id: str) -> Fields:
    return mint(key, {"public_id": public_id}, clock=services.clock, ids=services.ids)


def _judge_upload(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """Check that the same signature works again, or was used, and that the asset is the one that this means."""
    answer = try_again(data_dir, scene.fields)
    if answer not in ("ok", "signature_used") or (acknowledged and answer == "ok"):
        yield f"the other try got {answer}"
    expected = digest(THIRD if answer == "ok" else SECOND)
    if count(data_dir, f"assets WHERE sha256 = '{expected}'") != 1 or count(data_dir, "assets") != scene.assets:
        yield f"the asset is not what {answer} means"
    if count(data_dir, "grants WHERE uses = 1") != 2:
        yield "the signatures of two uploads must be used, and no other"


def _judge_repeat(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """Check that the repeat gets an answer in any case.

    It is that of the first upload, or a new one, which another repeat gets too.
    """
    told = [ask_again(data_dir, scene.fields, SECOND, KEY) for _ in range(2)]
    first = told[0][0]
    if first not in ("ok", "replayed") or (acknowledged and told[0] != ("replayed", acknowledged)):
        yield f"after {acknowledged or 'no answer'} the repeat got {told[0]}"
    if told[1] != ("replayed", told[0][1]):
        yield f"after {told[0]} one more got {told[1]}"
    if count(data_dir, "grants WHERE uses = 1") != 2 or count(data_dir, "assets") != scene.assets:
        yield "the repeats are not one upload"


def _judge_revocation(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    answer = try_again(data_dir, scene.fields)
    if answer not in ("ok", "signature_revoked") or (acknowledged and answer == "ok"):
        yield f"after {acknowledged or 'no answer'} the signature got {answer}"
    if count(data_dir, "assets") != 1 + (answer == "ok"):
        yield f"the assets are not what {answer} means"


def _judge_purge(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """By now a purge is through, and what it forgot must not come back."""
    answer = try_again(data_dir, scene.fields)
    if answer != "stale_request":
        yield f"after the purge a spent signature got {answer}"
    if count(data_dir, "grants") or count(data_dir, f"assets WHERE sha256 = '{digest(FIRST)}'") != 1:
        yield "the purge left its row, or touched the asset"


def _judge_rotation(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """Check that the old secret still counts, and that the newest secret signs."""
    with opened(settings(data_dir)) as backend:
        key = asyncio.run(backend.database.find_key(scene.fields["api_key"]))
        assert key is not None
        newest = signed_by(backend.services, key, "bird")
    if acknowledged and len(key.secrets) != 2:
        yield f"after {acknowledged} there are {len(key.secrets)} secrets"
    answers = [try_again(data_dir, fields) for fields in (scene.fields, newest)]
    if answers != ["ok", "ok"]:
        yield f"the old and the newest secret got {answers}"


def _judge_delete(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """Check that a deletion with an answer stays, that a repeat finds the same state, and that no used signature works.

    Rows and bytes are compared by the auditor, before the other try and after it.
    """
    there = count(data_dir, "assets")
    if acknowledged and there:
        yield f"after {acknowledged} the asset is still there"
    with opened(settings(data_dir)) as backend:
        found = asyncio.run(delete(services_of(backend, RandomIds()), scene.command[-1]))
    if found != (there == 1):
        yield f"of {there} assets the other try found {found}"
    if count(data_dir, "assets") != scene.assets or count(data_dir, "grants WHERE uses = 1") != 2:
        yield "the signatures of one upload and of one deletion must be used, and no asset be left"
    if (answer := try_again(data_dir, scene.fields)) != "signature_used":
        yield f"after the deletion the signature that had made the asset got {answer}"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
