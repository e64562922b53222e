"""What uponce promises of signatures, as a model that fits on a page: the state machine compares the server to it."""

from dataclasses import dataclass, field
from math import inf

from tests.world import MovableClock

WINDOW, SKEW = 3600, 300
KEPT = WINDOW + SKEW + 3600
"""Seconds after its timestamp for which a grant is remembered: window, skew, and the longest upload."""


@dataclass(eq=False)
class Signature:
    """One grant. `row` is what the ledger still knows of it, `known` what the audit knows too, which forgets nothing
    here, and `spent` what has really happened."""

    timestamp: int
    secret: str
    name: str
    overwrite: bool
    nonce: int
    row: str = "unused"
    known: str = "unused"
    spent: bool = False


@dataclass
class Reference:
    """Codes are those of the refusals; the empty one means accepted. `secrets` has until when each is good."""

    clock: MovableClock
    secrets: dict[str, float]
    watermark: float = -inf
    signatures: list[Signature] = field(default_factory=list)
    assets: dict[str, bytes] = field(default_factory=dict)
    deletions: list[int] = field(default_factory=list)
    """Timestamps of those that the ledger remembers: they are signed by another key, unlimited, each with a nonce."""
    forgotten_deletions: float = -inf

    def verdict(self, signature: Signature) -> str:
        """On an upload that begins now."""
        if not self.is_genuine(signature):
            return "invalid_signature"
        if self.is_early(signature):
            return "future_timestamp"
        if self.clock.time > signature.timestamp + WINDOW:
            return "stale_request"
        return self.verdict_at_commit(signature)

    def is_genuine(self, signature: Signature) -> bool:
        return self.clock.time < self.secrets.get(signature.secret, -inf)

    def is_early(self, signature: Signature) -> bool:
        return signature.timestamp > self.clock.time + SKEW

    def verdict_at_commit(self, signature: Signature) -> str:
        if signature.timestamp <= self.watermark:
            return "stale_request"
        return "" if signature.row == "unused" else f"signature_{signature.row}"

    def spend(self, signature: Signature, data: bytes) -> None:
        assert not signature.spent, "the model itself would let it in twice"
        signature.row = signature.known = "used"
        signature.spent = True
        if signature.overwrite or signature.name not in self.assets:
            self.assets[signature.name] = data

    def revoke(self, signature: Signature) -> str:
        """Return the state of the grant afterwards, or the refusal."""
        if signature.known == "unused" and self.is_early(signature):
            return "future_timestamp"
        if signature.known == "unused":
            signature.row = signature.known = "revoked"
        return signature.known

    def verdict_on_deletion(self, name: str) -> str:
        """Return the verdict on a deletion that is signed now."""
        if int(self.clock.time) <= self.forgotten_deletions:
            return "stale_request"
        return "ok" if name in self.assets else "not found"

    def delete(self, name: str) -> None:
        del self.assets[name]
        self.deletions.append(int(self.clock.time))

    def rotate(self, secret: str, overlap: int) -> None:
        current = next(known for known, until in self.secrets.items() if until == inf)
        # A clock that steps back revives no secret that ended at once.
        until = self.clock.time + overlap if overlap else -inf
        self.secrets = {current: until, secret: inf}

    def purge(self) -> None:
        for signature in self.signatures:
            if signature.row != "unused" and signature.timestamp + KEPT < self.clock.time:
                self.watermark = max(self.watermark, signature.timestamp)
                signature.row = "unused"
        over = [at for at in self.deletions if at + KEPT < self.clock.time]
        self.forgotten_deletions = max([self.forgotten_deletions, *over])
        self.deletions = [at for at in self.deletions if at not in over]
