"""What a server does while a line to its database or its store breaks, and what must be true afterwards."""

import asyncio
import base64
import itertools
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

from proof.faults.audit import Receipt
from proof.faults.place import Place
from proof.faults.tally import Tally
from proof.faults.wire import Cut, Side, Wire
from tests.asgi import END, FORM, Answer, call, part, parts_of
from tests.chunks import CHUNK, Client, noise
from tests.postgres import Postgres
from tests.world import World, create_key
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.store.blobs import Blobs
from uponce.app.sweep import sweep
from uponce.config.rules import DAY
from uponce.core.errors import UponceError
from uponce.core.policy import Limits
from uponce.core.values import KeyScope

_SECONDS = 30  # no story waits for that: a cut closes the line


class Line(Protocol):
    """See Wire."""

    passed: Counter[Side]
    broke: bool

    def arm(self, cut: Cut | None) -> None: ...

    def settle(self) -> None: ...


class Port(Protocol):
    def close(self) -> None: ...


class Stage(ABC):
    """A world on PostgreSQL. One `part` of it is reached directly, or through a `line` while something happens.

    `refusal` is the answer that a broken line may cause, `honest` are all answers that are allowed while it is broken.
    """

    part: str
    refusal: str
    honest: frozenset[str]
    wire: Line

    def __init__(self, folder: Path, postgres: Postgres, media: Mapping[str, str], blobs: Blobs | None) -> None:
        url = postgres.fresh_schema()
        self.world = World(folder, limits=Limits(min_chunk_bytes=CHUNK), blobs=blobs)
        self._secrets = AesSecretBox(bytes(32))
        self.database = self.database_at(url)
        for key in asyncio.run(self.world.database.list_keys()):
            asyncio.run(self.database.add_key(key))
        self.world.swap(database=self.database, put_group=self.world.blobs.put_group)
        asyncio.run(self.world.blobs.set_owner(asyncio.run(self.database.make_owner()), replace=True))
        self.place = Place(folder, {"UPONCE_DATABASE": url, "UPONCE_SECRET_KEY": bytes(32).hex(), **media})
        self.receipts: list[Receipt] = []
        self.cut: Cut | None = None
        self._numbers = itertools.count()

    def close(self) -> None:
        self.database.close()
        self.world.close()

    def name(self) -> str:
        return f"act-{next(self._numbers)}"

    @contextmanager
    def line(self, cut: Cut | None) -> Iterator[Line]:
        """Yield the line.

        Until it ends, the world reaches this part only by the line, and begins without a connection.
        """
        direct, far = getattr(self.world.services, self.part), self.reached()
        self.world.swap(**{self.part: far})
        self.cut = cut
        self.wire.arm(cut)
        try:
            yield self.wire
        finally:
            far.close()
            self.wire.settle()
            self.world.swap(**{self.part: direct})

    @abstractmethod
    def reached(self) -> Port:
        """Return the part, reached by the line."""

    @property
    def may_leave(self) -> int:
        """Return how many blobs an upload that certainly failed may leave to the sweeper."""
        return 0

    def blobs(self) -> int:
        """Return how many files or objects hold bytes, staged or published."""
        return len(list(self.place.spooled())) + len(self.place.media.keys())

    def kept(self, name: str) -> bytes | None:
        """Return what is served under that name. A row without bytes is not a 404."""
        answer = self.world.get(f"/{self.world.browser.cloud}/raw/upload/{name}")
        return None if answer.status == 404 else answer.body

    def audit(self, tally: Tally) -> None:
        asyncio.run(sweep(self.world.services, grace_seconds=0, audit_seconds=DAY))
        tally.audit(self.place, self.receipts)

    def database_at(self, url: str) -> PostgresDatabase:
        database = PostgresDatabase(url, secrets=self._secrets, clock=self.world.clock, connections=2, seconds=_SECONDS)
        database.open()
        return database


class DatabaseStage(Stage):
    """The line to PostgreSQL may break."""

    wire: Wire
    part = "database"
    refusal = "database_unavailable"
    honest = frozenset({"ok", "database_unavailable", "outcome_unknown"})

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        super().__init__(folder, postgres, {"UPONCE_STORAGE": f"file://{folder}/media"}, None)
        self.wire = Wire(postgres.folder)
        url = self.place.environment["UPONCE_DATABASE"]
        self._far = url.replace(quote(str(postgres.folder)), quote(str(self.wire.folder)))

    def close(self) -> None:
        self.wire.close()
        super().close()

    def reached(self) -> Port:
        return self.database_at(self._far)


class Upload:
    """an upload"""

    over_old = False
    key: str | None = None

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.name = stage.name()
        self.told = ""
        self.answer: Answer | None = None
        self.data = f"the new bytes of {self.name}, ".encode() * 20
        if self.over_old:
            assert self.send(self.sign(), b"the old ones").code == "ok"
        self.fields = self.sign()
        self.before = stage.blobs()

    def sign(self) -> dict[str, str]:
        return self.stage.world.sign({"public_id": self.name})

    def send(self, fields: dict[str, str], data: bytes) -> Answer:
        headers = {} if self.key is None else {"Idempotency-Key": f'"{self.key}"'}
        return self.stage.world.upload(fields, data, kind="raw", filename="file.bin", headers=headers)

    def act(self) -> None:
        self.answer = self.send(self.fields, self.data)
        self.told = self.answer.code

    def judge(self, tally: Tally) -> None:
        stage = self.stage
        happened = stage.kept(self.name) == self.data
        left = stage.blobs() - self.before
        tally.counts[f"told {self.told}"] += 1
        tally.expect(self.told in self.stage.honest, "strange answers", self.told)
        tally.expect(happened or self.told != "ok", "wrong answers", f"{self.name}: told ok, and it is not there")
        tally.expect(not (happened and self.told == stage.refusal), "wrong answers", f"{self.name}: told no, and it is")
        if self.told == "outcome_unknown":
            tally.expect(left == 1, "bytes deleted while unknown", f"{self.name}: {left}")
        if self.told == stage.refusal:
            tally.expect(0 <= left <= stage.may_leave, "bytes left by a definite failure", f"{self.name}: {left}")
        again = self.send(self.fields, self.data)
        expected = "ok" if self.key or not happened else "signature_used"
        tally.expect(again.code == expected, "wrong answers when sent again", f"{self.name}: {again.code}")
        if self.key and again.code == "ok":
            is_replay = "idempotent-replayed" in again.headers
            tally.expect(is_replay == happened, "wrong answers when sent again", f"{self.name}: replay {is_replay}")
        self.keep(tally)

    def keep(self, tally: Tally) -> None:
        """By now there is the asset."""
        same = self.stage.kept(self.name) == self.data
        tally.expect(same, "not served as it was sent", self.name)
        ((asset_id,),) = self.stage.place.rows(f"SELECT asset_id FROM assets WHERE public_id = '{self.name}'")
        self.stage.receipts.append(Receipt(self.name, asset_id, sha256(self.data).hexdigest()))


class Overwrite(Upload):
    """an overwrite"""

    over_old = True


class Repeatable(Upload):
    """an upload with an Idempotency-Key"""

    key = "the-same-one"


class Chunked(Upload):
    """an upload in chunks, each with its own signature"""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.data = noise(3 * CHUNK, seed=hash(self.name))
        self.client = Client(stage.world, self.data, fields=self.fields, upload_id=self.name)
        self.signed = [self.sign() for _ in self.client.spans]

    def act(self) -> None:
        self.told = self.send_all()

    def send_all(self) -> str:
        """Send one chunk after the other, until one is refused or is answered with the asset."""
        for fields, span in zip(self.signed, self.client.spans, strict=True):
            answer = asyncio.run(self.client.chunk(*span, fields=fields))
            if answer.code != "ok" or answer.json.get("asset_id"):
                return answer.code
        return "incomplete"

    def judge(self, tally: Tally) -> None:
        happened = self.stage.kept(self.name) == self.data
        tally.counts[f"told {self.told}"] += 1
        tally.expect(self.told in self.stage.honest, "strange answers", self.told)
        right = {"ok": happened, self.stage.refusal: not happened}.get(self.told, True)
        tally.expect(right, "wrong answers", f"{self.name}: {self.told}, {happened}")
        again = self.send_all()
        expected = "signature_used" if happened else "ok"
        tally.expect(again == expected, "wrong answers when sent again", f"{self.name}: {again}")
        self.keep(tally)
        for fields in self.signed:
            code = self.send(fields, b"another").code
            tally.expect(code == "signature_used", "signatures of a complete series not spent", f"{self.name}: {code}")


class Race(Upload):
    """two uploads with one signature"""

    def act(self) -> None:
        async def both() -> list[Answer]:
            return list(await asyncio.gather(*(self._post(data) for data in self._rivals())))

        self.answers = [answer.code for answer in asyncio.run(both())]
        self.told = " and ".join(self.answers)

    def _rivals(self) -> list[bytes]:
        return [self.data, self.data + b"!"]

    async def _post(self, data: bytes) -> Answer:
        world, form = self.stage.world, [parts_of(self.fields), part("file", data, "file.bin"), END]
        whole = world.whole_bodies
        return await call(world.app, "POST", world.route("raw"), headers=FORM, chunks=form, whole=whole)

    def judge(self, tally: Tally) -> None:
        kept = self.stage.kept(self.name)
        for data, told in zip(self._rivals(), self.answers, strict=True):
            tally.counts[f"told {told}"] += 1
            tally.expect(told in self.stage.honest | {"signature_used"}, "strange answers", told)
            other = kept is not None and kept != data
            right = {"ok": kept == data, self.stage.refusal: kept != data, "signature_used": other}.get(told, True)
            tally.expect(right, "wrong answers", f"{self.name}: {self.told}")
        again = self.send(self.fields, self.data).code
        tally.expect(again == ("ok" if kept is None else "signature_used"), "wrong answers when sent again", again)
        self.data = kept or self.data
        self.keep(tally)


class Deletion(Upload):
    """a deletion"""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        assert self.send(self.fields, self.data).code == "ok"
        world = stage.world
        self.deleting = asyncio.run(create_key(world.services, world.browser.cloud, scope=KeyScope.ALL))
        self.order = world.sign({"public_id": self.name}, key=self.deleting)

    def act(self) -> None:
        self.told = self._delete()

    def _delete(self) -> str:
        world = self.stage.world
        target, headers = (
            f"/v1_1/{world.browser.cloud}/raw/destroy",
            {"content-type": "application/x-www-form-urlencoded"},
        )
        answer = world.request("POST", target, headers=headers, chunks=[urlencode(self.order).encode()])
        return str(answer.json["result"]) if answer.status == 200 else answer.code

    def judge(self, tally: Tally) -> None:
        kept = self.stage.kept(self.name)
        tally.counts[f"told {self.told}"] += 1
        tally.expect(self.told in self.stage.honest, "strange answers", self.told)
        whole = kept in (None, self.data)
        right = {"ok": kept is None, self.stage.refusal: kept is not None}.get(self.told, True)
        tally.expect(whole and right, "wrong answers", f"{self.name}: {self.told}, {kept is None}")
        again = self._delete()
        expected = "signature_used" if kept is None else "ok"
        tally.expect(again == expected, "wrong answers when sent again", f"{self.name}: {again}")
        code = self.send(self.fields, self.data).code
        gone = self.stage.kept(self.name) is None and code == "signature_used"
        tally.expect(gone, "deleted, but not for good", f"{self.name}: {code}")


class Revocation(Upload):
    """a revocation"""

    def act(self) -> None:
        world = self.stage.world
        credentials = base64.b64encode(f"{world.browser.api_key}:{world.browser.secrets[0]}".encode()).decode()
        headers = {"authorization": f"Basic {credentials}", "content-type": "application/json"}
        target = f"/v1_1/{world.browser.cloud}/signatures/revoke"
        self.told = world.request("POST", target, headers=headers, chunks=[json.dumps(self.fields).encode()]).code

    def judge(self, tally: Tally) -> None:
        tally.counts[f"told {self.told}"] += 1
        tally.expect(self.told in self.stage.honest, "strange answers", self.told)
        code = self.send(self.fields, self.data).code
        possible = {"ok": {"signature_revoked"}, self.stage.refusal: {"ok"}}
        right = code in possible.get(self.told, {"signature_revoked", "ok"})
        tally.expect(right, "wrong answers", f"{self.name}: {self.told}, then {code}")
        if code == "ok":
            self.keep(tally)


class Sweep(Upload):
    """a sweep"""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        assert self.send(self.fields, self.data).code == "ok"
        self.orphan = asyncio.run(self._orphan())

    async def _orphan(self) -> str:
        stage = await self.stage.world.blobs.receive()
        await stage.write(b"bytes that nobody names")
        await stage.seal()
        await stage.publish()
        return stage.key

    def act(self) -> None:
        self.told = asyncio.run(self._sweep())

    async def _sweep(self) -> str:
        try:
            await sweep(self.stage.world.services, grace_seconds=0, audit_seconds=DAY)
        except UponceError as error:
            return error.code
        return "ok"

    def judge(self, tally: Tally) -> None:
        tally.counts[f"told {self.told}"] += 1
        tally.expect(self.told in self.stage.honest, "strange answers", self.told)
        self.keep(tally)
        again = asyncio.run(self._sweep())
        gone = asyncio.run(self.stage.world.blobs.open(self.orphan)) is None
        tally.expect((again, gone) == ("ok", True), "orphans that no sweep finds", f"{self.orphan}: {again}")


STORIES: tuple[type[Upload], ...] = (Upload, Overwrite, Repeatable, Chunked, Race, Revocation, Deletion, Sweep)
