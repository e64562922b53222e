"""The state machine: any sequence of what people, clocks and crashes do, against a model of one page.

After every step the catalog and the bytes on the disk are exactly those of the model; every answer is the model's.
"""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from cloudinary.utils import SIGNATURE_SHA1, SIGNATURE_SHA256, api_sign_request
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proof.faults.audit import examine
from proof.faults.mortal import CLOUD, LOST, Attempt, Process
from proof.faults.reference import KEPT, SKEW, WINDOW, Reference, Signature
from tests.app.uploads import CALLER
from tests.contract.stores import local_of
from tests.world import MovableClock
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.app.manage_keys import rotate_key, set_up
from uponce.app.manage_signatures import revoke_signature, show_signature
from uponce.app.owner import claim_storage
from uponce.app.sign import mint
from uponce.app.signed_calls import SignedCall, destroy
from uponce.app.sweep import sweep
from uponce.core.errors import FutureTimestamp, UponceError
from uponce.core.parameters import Call
from uponce.core.values import ResourceType

T = TypeVar("T")

MOST_SIGNATURES = 4
MOST_ROTATIONS = 2
FOREVER = 10**9
EDGES = (-SKEW - 1, -SKEW, 0, WINDOW, WINDOW + 1, KEPT, KEPT + 1)
TABLES = ("assets", "grants", "audit", "condemned", "api_keys")

picks = st.integers(0, 3)
spellings = st.sampled_from((SIGNATURE_SHA1, SIGNATURE_SHA256))


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


class Machine(RuleBasedStateMachine):
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

    # What people do.

    @initialize(overwrites=st.tuples(st.booleans(), st.booleans()))
    def sign_first(self, overwrites: tuple[bool, bool]) -> None:
        """Sign for one name, so that every example has something to do."""
        for overwrite in overwrites:
            self.sign("a", overwrite, 0)

    @precondition(lambda self: len(self.model.signatures) < MOST_SIGNATURES)
    @rule(name=st.sampled_from("ab"), overwrite=st.booleans(), offset=st.sampled_from((0, 0, SKEW, -WINDOW)))
    def sign(self, name: str, overwrite: bool, offset: int) -> None:
        secret = next(secret for secret, until in self.model.secrets.items() if until == inf)
        at = int(self.clock.time) + offset
        self.model.signatures.append(Signature(at, secret, name, overwrite, len(self.model.signatures)))

    @precondition(lambda self: self.model.signatures)
    @rule(pick=picks, spelling=spellings)
    def start(self, pick: int, spelling: str) -> None:
        self.begin(self.signature(pick), spelling)

    @precondition(lambda self: self.model.signatures)
    @rule(pick=picks, spelling=spellings)
    def upload(self, pick: int, spelling: str) -> None:
        """Upload from the beginning to the end. A client that tries again does the same."""
        upload = self.begin(self.signature(pick), spelling)
        if upload is not None:
            self.conclude([upload])

    @precondition(lambda self: self.live)
    @rule(pick=picks)
    def send(self, pick: int) -> None:
        assert self.run(self.upload_of(pick).attempt.send()) == ""

    @precondition(lambda self: self.live)
    @rule(pick=picks)
    def abort(self, pick: int) -> None:
        upload = self.upload_of(pick)
        self.live.remove(upload)
        self.run(upload.attempt.abort())

    @precondition(lambda self: self.live)
    @rule(pick=picks, together=st.booleans())
    def finish(self, pick: int, together: bool) -> None:
        """Finish one upload, or all that run with its signature in the same moment."""
        chosen = self.upload_of(pick)
        same = [up for up in self.live if up.signature is chosen.signature and up.verified]
        self.conclude(same if together and chosen.verified else [chosen])

    @precondition(lambda self: self.model.signatures)
    @rule(pick=picks, spelling=spellings)
    def revoke(self, pick: int, spelling: str) -> None:
        signature = self.signature(pick)
        if self.model.is_genuine(signature):
            self.run(self.revoke_now(signature, spelling))

    @precondition(lambda self: self.model.signatures)
    @rule(pick=picks, spelling=spellings)
    def look(self, pick: int, spelling: str) -> None:
        signature = self.signature(pick)
        if self.model.is_genuine(signature):
            seen = self.run(show_signature(self.process.services, self.key, self.fields(signature, spelling)))
            assert seen.record.status == signature.known

    @precondition(lambda self: self.model.assets)
    @rule(name=st.sampled_from("ab"))
    def delete(self, name: str) -> None:
        expected = self.model.verdict_on_deletion(name)
        if expected == "ok":
            self.model.delete(name)
        assert self.run(self.delete_now(name)) == expected
        self.tally[f"deletions: {expected}"] += 1

    @precondition(lambda self: self.has_begun and self.rotations < MOST_ROTATIONS)
    @rule(overlap=st.sampled_from((WINDOW, WINDOW, 0)))
    def rotate(self, overlap: int) -> None:
        self.rotations += 1
        rotated = self.run(rotate_key(self.process.services, self.key.api_key, overlap))
        self.model.rotate(rotated.secrets[0], overlap)

    # What time does.

    @precondition(lambda self: self.has_begun)
    @rule(pick=picks, edge=st.sampled_from(EDGES))
    def step(self, pick: int, edge: int) -> None:
        """Forward or back, to where something changes for a signature."""
        self.clock.time = self.signature(pick).timestamp + edge

    @precondition(lambda self: self.has_ledger)
    @rule()
    def purge(self) -> None:
        self.run(self.process.services.database.purge(FOREVER))
        self.model.purge()

    @precondition(lambda self: self.has_ledger)
    @rule(pick=picks)
    def purge_by_a_wrong_clock(self, pick: int) -> None:
        """Purge while the clock is so far ahead that all grants are old, and set the clock right again."""
        right = self.clock.time
        self.step(pick, KEPT + 1)
        self.purge()
        self.clock.time = right

    @precondition(lambda self: self.has_begun)
    @rule()
    def sweep(self) -> None:
        self.run(self.sweep_now())

    # What machines do.

    @precondition(lambda self: self.has_begun)
    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        """Killed with all that runs, or asked to stop."""
        if kill:
            self.tally["crashes amid uploads"] += bool(self.live)
            self.process.life.alive = False
        self.recover()

    @precondition(lambda self: self.live)
    @rule(pick=picks, moment=st.sampled_from(("before_commit", "after_commit")))
    def crash_at_commit(self, pick: int, moment: str) -> None:
        upload = self.upload_of(pick)
        expected = self.verdict_before_commit(upload) or self.model.verdict_at_commit(upload.signature)
        if moment == "after_commit" and not expected:
            self.model.spend(upload.signature, upload.attempt.data)
        result = self.finish_amid(upload, moment, self.process.life.die)
        if self.process.life.alive:
            assert result == expected, (result, expected)
        else:
            assert result in LOST
            self.tally["crashes at the commit"] += 1
            self.recover()

    @precondition(lambda self: self.model.assets)
    @rule(name=st.sampled_from("ab"), moment=st.sampled_from(("before_commit", "after_commit")))
    def crash_at_deletion(self, name: str, moment: str) -> None:
        if moment == "after_commit" and self.model.verdict_on_deletion(name) == "ok":
            self.model.delete(name)
        setattr(self.process.life, moment, self.process.life.die)
        result = self.run(self.delete_now(name))
        self.tally["crashes amid deletions"] += result in LOST
        self.recover()

    @precondition(lambda self: self.live)
    @rule(pick=picks)
    def sweep_at_commit(self, pick: int) -> None:
        """Sweep when the bytes are durable, the row is not there yet, and the bytes look abandoned."""
        upload = self.upload_of(pick)
        expected = self.verdict_before_commit(upload) or self.model.verdict_at_commit(upload.signature)
        result = self.finish_amid(upload, "before_commit", self.sweep_now)
        assert result == (expected or "attempt_expired"), (result, expected)

    @precondition(lambda self: self.live)
    @rule(pick=picks)
    def revoke_at_commit(self, pick: int) -> None:
        upload = self.upload_of(pick)
        if not self.model.is_genuine(upload.signature) or self.model.is_early(upload.signature):
            return
        expected = self.verdict_before_commit(upload)
        result = self.finish_amid(upload, "before_commit", partial(self.revoke_now, upload.signature, SIGNATURE_SHA1))
        assert result == (expected or self.model.verdict_at_commit(upload.signature))

    # What must hold.

    @invariant()
    def shows_exactly_what_it_should(self) -> None:
        """Nothing acknowledged is lost, nothing else is there, and every row has its bytes."""
        self.tally["steps"] += 1
        rows = self.looking.execute("SELECT public_id, blob_key FROM assets").fetchall()
        assert {name: self.bytes_of(key) for name, key in rows} == self.model.assets

    def teardown(self) -> None:
        try:
            self.drop_uploads()
            self.run(self.sweep_now())
            findings = examine(self.root)
            assert not (findings.lost or findings.orphans or findings.hollow), findings
            # A purged grant has left the ledger, but not the audit.
            forgot = max(self.model.watermark, self.model.forgotten_deletions)
            assert forgot > -inf or not findings.double, findings
            twice = "audit WHERE event IN ('spent', 'deleted') GROUP BY grant_key HAVING count(*) > 1"
            assert self.looking.execute(f"SELECT count(*) FROM {twice}").fetchone() is None
        finally:
            self.process.life.alive = False
            self.process.end()
            self.looking.close()
            self.loop.close()

    # How.

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
        self.made += 1
        data = f"{signature.name}, upload {self.made}. ".encode() * 9

        async def first() -> tuple[Attempt, str]:
            attempt = Attempt(self.process, data)
            return attempt, await attempt.begin(self.fields(signature, spelling))

        attempt, refused = self.run(first())
        if not refused:
            self.live.append(Upload(signature, attempt, verified))
        assert refused == (expected if verified else ""), expected
        self.tally[refused or "begun"] += 1
        return None if refused else self.live[-1]

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
        path = local_of(self.process.blobs).path_of(blob_key)
        return path.read_bytes() if path.exists() else None
