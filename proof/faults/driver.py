"""How the state machine acts: a server process that may die, uploads that run, and what the model says of them."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from cloudinary.utils import api_sign_request
from hypothesis.stateful import RuleBasedStateMachine

from proof.faults.mortal import CLOUD, Attempt, Process
from proof.faults.reference import Reference, Signature
from tests.app.uploads import CALLER
from tests.contract.stores import local_of
from tests.world import MovableClock
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.files import is_packed
from uponce.app.manage_keys import set_up
from uponce.app.manage_signatures import revoke_signature
from uponce.app.owner import claim_storage
from uponce.app.sign import mint
from uponce.app.signed_calls import SignedCall, destroy
from uponce.app.sweep import sweep
from uponce.core.errors import FutureTimestamp, UponceError
from uponce.core.parameters import Call
from uponce.core.values import ResourceType

T = TypeVar("T")

FOREVER = 10**9
TABLES = ("assets", "grants", "audit", "condemned", "api_keys")


class Upload:
    """An attempt as the model sees it. `swept`: its spooled bytes are gone.

    One whose signature was wrong when it began is not `verified`: it is judged at its end, since signed fields may
    follow the file.
    """

    def __init__(self, signature: Signature, attempt: Attempt, verified: bool) -> None:
        self.signature = signature
        self.attempt = attempt
        self.verified = verified
        self.swept = False


class Driver(RuleBasedStateMachine):
    """`root` and `database` are set by a subclass for each run; `tally` counts over all of its examples."""

    root: ClassVar[Path]
    database: ClassVar[type[SqliteDatabase]]
    tally: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.tally["examples"] += 1
        self.loop = asyncio.Runner()
        self.clock = MovableClock()
        self.live: list[Upload] = []
        self.made = self.rotations = 0
        self.process = self.start_process()
        self.looking = sqlite3.connect(self.root / "uponce.db", isolation_level=None)
        self.wipe()
        self.run(claim_storage(self.process.services.database, self.process.blobs))
        self.key, self.server = self.run(set_up(self.process.services, CLOUD))
        self.model = Reference(self.clock, {self.key.secrets[0]: inf})

    @property
    def has_begun(self) -> bool:
        return bool(self.live or self.model.assets)

    @property
    def has_ledger(self) -> bool:
        return any(signature.row != "unused" for signature in self.model.signatures)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def signature(self, pick: int) -> Signature:
        return self.model.signatures[pick % len(self.model.signatures)]

    def upload_of(self, pick: int) -> Upload:
        return self.live[pick % len(self.live)]

    def fields(self, signature: Signature, spelling: str) -> dict[str, str]:
        fields = {
            "timestamp": str(signature.timestamp),
            "nonce": str(signature.nonce),
            "public_id": signature.name,
            "overwrite": str(signature.overwrite).lower(),
        }
        digest = api_sign_request(fields, signature.secret, spelling)
        return {**fields, "signature": digest, "api_key": self.key.api_key}

    def begin(self, signature: Signature, spelling: str) -> Upload | None:
        """None when it is refused at once, as it should be."""
        expected = self.verdict(signature)
        verified = expected != "invalid_signature"
        data = self.new_bytes(signature)

        async def first() -> tuple[Attempt, str]:
            attempt = Attempt(self.process, data)
            return attempt, await attempt.begin(self.fields(signature, spelling))

        attempt, refused = self.run(first())
        if not refused:
            self.live.append(Upload(signature, attempt, verified))
        assert refused == (expected if verified else ""), expected
        self.tally[refused or "begun"] += 1
        return None if refused else self.live[-1]

    def new_bytes(self, signature: Signature) -> bytes:
        self.made += 1
        return f"{signature.name}, upload {self.made}. ".encode() * 9

    def verdict(self, signature: Signature) -> str:
        return self.model.verdict(signature)

    def verdict_before_commit(self, upload: Upload) -> str:
        refusal = "" if upload.verified else self.verdict(upload.signature)
        return refusal or ("storage_unavailable" if upload.swept else "")

    def conclude(self, uploads: list[Upload]) -> None:
        """Finish all these uploads at once. If there are several, they have one signature and are verified."""
        signature = uploads[0].signature
        self.live = [upload for upload in self.live if upload not in uploads]

        async def last() -> list[str]:
            return await asyncio.gather(*(upload.attempt.finish() for upload in uploads))

        early = [answer for upload in uploads if (answer := self.verdict_before_commit(upload))]
        refusal = self.model.verdict_at_commit(signature)
        late = [refusal or "signature_used"] * (len(uploads) - len(early))
        if late and not refusal:
            late[0] = "ok"
        results = self.run(last())
        assert sorted(results) == sorted(early + late)
        for upload, result in zip(uploads, results, strict=True):
            self.tally[result] += 1
            if result == "ok":
                self.model.spend(signature, upload.attempt.data)

    def finish_amid(self, upload: Upload, moment: str, work: Callable[[], Coroutine[Any, Any, None]]) -> str:
        self.live.remove(upload)
        life = self.process.life
        setattr(life, moment, work)
        result = self.run(upload.attempt.finish())
        self.tally["amid a commit"] += getattr(life, moment) is None
        setattr(life, moment, None)
        self.tally[result] += 1
        return result

    async def delete_now(self, name: str) -> str:
        services = self.process.services
        params = {"public_id": name, "nonce": services.ids.hex(20)}
        fields = mint(self.server, params, clock=services.clock, ids=services.ids, call=Call.DESTROY)
        try:
            return "ok" if await destroy(services, SignedCall(CLOUD, ResourceType.RAW, fields, CALLER)) else "not found"
        except UponceError as error:
            return error.code

    async def revoke_now(self, signature: Signature, spelling: str) -> None:
        fields = self.fields(signature, spelling)
        try:
            state: str = (await revoke_signature(self.process.services, self.key, fields, CALLER)).status
        except FutureTimestamp as error:
            state = error.code
        assert state == self.model.revoke(signature)

    async def sweep_now(self) -> None:
        await sweep(self.process.services, grace_seconds=0, audit_seconds=FOREVER)
        self.model.purge()
        for upload in self.live:
            upload.swept = True

    def recover(self) -> None:
        """Recover: running uploads are lost, and only what is on the disk exists."""
        self.drop_uploads()
        self.process.end()
        self.process = self.start_process()

    def drop_uploads(self) -> None:
        for upload in self.live:
            self.run(upload.attempt.abort())
        self.live.clear()

    def start_process(self) -> Process:
        return Process(self.root, self.clock, self.database)

    def wipe(self) -> None:
        self.looking.executescript("".join(["BEGIN;", *(f"DELETE FROM {table};" for table in TABLES), "COMMIT"]))
        for path in (self.root / "media").rglob("*"):
            if path.is_file():
                path.unlink()

    def bytes_of(self, blob_key: str) -> bytes | None:
        if is_packed(blob_key):
            return self.run(self.packed_bytes(blob_key))
        path = local_of(self.process.blobs).path_of(blob_key)
        return path.read_bytes() if path.exists() else None

    async def packed_bytes(self, blob_key: str) -> bytes | None:
        blob = await self.process.blobs.open(blob_key)
        if blob is None:
            return None
        with closing(blob):
            return bytes(await blob.read(0, blob.size))
