"""The state machine: any sequence of what people, clocks and crashes do, against a model of one page.

After every step the catalog and the bytes on the disk are exactly those of the model; every answer is the model's.
"""

import asyncio
from functools import partial
from math import inf

from cloudinary.utils import SIGNATURE_SHA1, SIGNATURE_SHA256
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from proof.faults.audit import examine
from proof.faults.driver import FOREVER, Driver
from proof.faults.mortal import LOST
from proof.faults.reference import KEPT, SKEW, WINDOW, Signature
from uponce.app.manage_keys import rotate_key
from uponce.app.manage_signatures import show_signature

MOST_SIGNATURES = 4
MOST_ROTATIONS = 2
EDGES = (-SKEW - 1, -SKEW, 0, WINDOW, WINDOW + 1, KEPT, KEPT + 1)

picks = st.integers(0, 3)
spellings = st.sampled_from((SIGNATURE_SHA1, SIGNATURE_SHA256))


class Machine(Driver):
    """The rules, and what must hold after each of them."""

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

    @precondition(lambda self: self.model.signatures)
    @rule(pick=picks, spelling=spellings, times=st.integers(1, 2))
    def upload_whole(self, pick: int, spelling: str, times: int) -> None:
        """Upload bodies that have arrived, perhaps two with one signature in the same group."""
        signature = self.signature(pick)
        files, fields = [self.new_bytes(signature) for _ in range(times)], self.fields(signature, spelling)
        refusal = self.verdict(signature)
        expected = [refusal] * times if refusal else ["ok", "signature_used"][:times]

        async def all_of() -> list[str]:
            return await asyncio.gather(*(self.process.upload_whole(data, fields) for data in files))

        results = self.run(all_of())
        assert sorted(results) == sorted(expected), (results, expected)
        for data, result in zip(files, results, strict=True):
            self.tally[f"in a group: {result}"] += 1
            if result == "ok":
                self.model.spend(signature, data)

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
