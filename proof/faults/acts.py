"""What clients do to a fleet under faults. Each act has its own signature, which works once."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from proof.faults.clients import LOST, Reply, form
from tests import samples
from tests.server import Key, Server

LARGEST = 400_000
DELETIONS, OVERWRITES = 0.15, 0.15
"""Which part of all acts they are; the others upload new assets."""

KNOWN = 200
"""So many assets of earlier rounds are kept in mind, to be overwritten or deleted."""


@dataclass(eq=False)
class Upload:
    """Of a new asset, or of one that takes the place of an `old` one. `data` is what it has put there."""

    number: int
    public_id: str
    fields: Mapping[str, str]
    kind: str
    data: bytes
    old: "Upload | None" = None
    reply: Reply = field(default_factory=lambda: Reply(LOST))

    @property
    def name(self) -> str:
        return "uploads" if self.old is None else "overwrites"

    @property
    def verdict(self) -> str:
        return self.reply.verdict

    @property
    def path(self) -> str:
        return f"{self.kind}/upload/{self.public_id}"

    @property
    def before(self) -> bytes | None:
        """Return what is served under its name as long as it has not happened."""
        return None if self.old is None else self.old.data

    @property
    def after(self) -> bytes | None:
        return self.data

    def request(self, server: Server) -> bytes:
        return form(server, self.fields, self.data, self.kind)

    def changed(self) -> "Upload":
        """Return an upload with the same signature and other bytes."""
        return Upload(self.number, self.public_id, self.fields, self.kind, self.data + b"again", self.old)


@dataclass(eq=False)
class Deletion:
    """Of an `old` asset."""

    number: int
    fields: Mapping[str, str]
    old: Upload
    reply: Reply = field(default_factory=lambda: Reply(LOST))
    name = "deletions"
    kind = "deletion"
    after = None

    @property
    def public_id(self) -> str:
        return self.old.public_id

    @property
    def path(self) -> str:
        return self.old.path

    @property
    def before(self) -> bytes | None:
        return self.old.data

    @property
    def verdict(self) -> str:
        return str(self.reply.body["result"]) if self.reply.status == 200 else self.reply.verdict

    def request(self, server: Server) -> bytes:
        body = urlencode(self.fields).encode()
        head = (
            f"POST /v1_1/{server.cloud}/{self.old.kind}/destroy HTTP/1.1\r\nHost: {urlsplit(server.base).netloc}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def changed(self) -> "Deletion":
        """There is nothing else that it could delete."""
        return Deletion(self.number, self.fields, self.old)


Act = Upload | Deletion


@dataclass
class Actor:
    """Chooses acts. `known` are assets that no running act changes: each is removed from it when it is chosen.

    `deleting` is a key of scope all, whose signatures work once.
    """

    server: Server
    deleting: Key
    chance: random.Random
    pictures: Sequence[bytes] = field(default_factory=lambda: [samples.jpeg(seed, 160, 120) for seed in range(4)])
    known: list[Upload] = field(default_factory=list)
    begun: int = 0

    def next(self) -> Act:
        self.begun += 1
        chosen = self.chance.random()
        old = self._take() if self.known and chosen < DELETIONS + OVERWRITES else None
        if old and chosen < DELETIONS:
            return Deletion(self.begun, self._sign(old.public_id, self.deleting), old)
        public_id = old.public_id if old else f"asset-{self.begun}"
        kind, data = self._file(old.kind if old else "image" if self.chance.random() < 0.2 else "raw")
        return Upload(self.begun, public_id, self._sign(public_id), kind, data, old)

    def keep(self, upload: Upload) -> None:
        """Let the next round change the asset of this upload: it exists, and the round is over."""
        upload.old = None  # its bytes are not needed any more
        self.known = [*self.known[-KNOWN:], upload]

    def _take(self) -> Upload:
        return self.known.pop(self.chance.randrange(len(self.known)))

    def _sign(self, public_id: str, key: Key | None = None) -> dict[str, str]:
        return self.server.signed({"public_id": public_id, "nonce": self.begun}, key)

    def _file(self, kind: str) -> tuple[str, bytes]:
        if kind == "image":
            return kind, self.chance.choice(self.pictures)
        return kind, self.chance.randbytes(64) * self.chance.randrange(1, LARGEST // 64)
