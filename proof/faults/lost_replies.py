"""A database whose reply to COMMIT gets lost, sometimes after the commit and sometimes instead of it.

Uploads run at once through the real use case: half of them stream in, half take their steps in groups. Each signature
is tried by two uploads with different bytes at the same time, so that the asset shows which of them succeeded. After
that the first of them is sent again until it gets a definite answer.
"""

import asyncio
import random
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

from proof.faults.audit import Receipt, count
from proof.faults.operator import give_key
from proof.faults.tally import Tally
from proof.faults.unknown_as_failure import arrival_or_discard, commit_or_discard
from tests.app.uploads import form, send, send_whole
from tests.world import World
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.sqlite.connection import Connection, connect
from uponce.adapters.secretbox import AesSecretBox
from uponce.app.attempts import Attempts
from uponce.app.sweep import sweep
from uponce.app.uploading import streamed
from uponce.app.uploading.pipeline import Pipeline
from uponce.config.rules import DAY
from uponce.core.errors import DatabaseUnavailable, UponceError
from uponce.core.values import Asset, AssetName, DeliveryType, ResourceType
from uponce.wiring import group_putter

SIGNATURES = 12
_MOST_RETRIES = 50
_WHOLE = 0.5
_HONEST = {"ok", "signature_used", "outcome_unknown", "database_unavailable"}


@dataclass
class Line:
    """To the database. Of the replies to COMMIT it loses a part, each kind with its own chance; so it does reading."""

    chance: random.Random
    after: float = 0.3
    instead: float = 0.3
    reading: float = 0.3
    lost_after: int = 0
    lost_instead: int = 0

    def connect(self, path: Path) -> Connection:
        connection: Unreliable = connect(path, factory=Unreliable)  # type: ignore[assignment]
        connection.line = self
        return connection

    def commit(self, connection: Connection) -> None:
        drawn = self.chance.random()
        if drawn < self.instead:
            self.lost_instead += 1
            raise sqlite3.OperationalError("the connection broke before COMMIT")
        connection.commit()
        if drawn > 1 - self.after:
            self.lost_after += 1
            raise sqlite3.OperationalError("the connection broke after COMMIT")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        chances = self.after, self.instead, self.reading
        self.after = self.instead = self.reading = 0
        yield
        self.after, self.instead, self.reading = chances


class Unreliable(Connection):
    line: Line | None = None

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql != "COMMIT" or self.line is None:
            return super().execute(sql, *values)
        self.line.commit(self)
        return self.cursor()


class ForgetfulDatabase(SqliteDatabase):
    """Reading back fails at times too."""

    def __init__(self, path: Path, line: Line, **more: Any) -> None:
        super().__init__(path, connect=line.connect, **more)
        self._line = line

    async def confirm_commit(self, blob_key: str) -> Asset | None:
        if self._line.chance.random() < self._line.reading:
            raise DatabaseUnavailable("The connection broke.")
        return await super().confirm_commit(blob_key)


@contextmanager
def broken_line(folder: Path, line: Line) -> Iterator[World]:
    """Yield a world that is set up, with such a line between it and its database."""
    world = World(folder)
    database = ForgetfulDatabase(world.path, line, clock=world.clock, secrets=AesSecretBox(bytes(32)))
    with line.quiet():
        database.open()
    world.swap(database=database, put_group=group_putter(database, world.blobs, alone=True))
    try:
        yield world
    finally:
        database.close()
        world.close()


class Round:
    """Some signatures, two uploads with each. Every other one overwrites an asset that is there already."""

    def __init__(self, world: World, folder: Path, line: Line, number: int, tally: Tally) -> None:
        self._world = world
        self._folder = folder
        self._line = line
        self._tally = tally
        self._names = [f"round-{number}-{i}" for i in range(SIGNATURES)]
        self.receipts: dict[str, Receipt] = {}

    async def play(self) -> None:
        with self._line.quiet():
            await asyncio.gather(*(self._try(self._sign(name), _data(name, "old")) for name in self._names[::2]))
        self.receipts.clear()  # they are overwritten, perhaps without a known winner
        lost = self._line.lost_after + self._line.lost_instead
        fields = {name: self._sign(name) for name in self._names}
        tries = [(name, which) for name in self._names for which in ("one", "two")]
        answers = await asyncio.gather(*(self._try(fields[name], _data(name, which)) for name, which in tries))
        for (name, which), answer in zip(tries, answers, strict=True):
            await self._check_told(name, which, answer)
        self._tally.audit(self._folder, self.receipts.values(), ("lost", "double", "hollow"))
        for name in self._names:
            await self._check_again(name, fields[name])
        self._tally.audit(self._folder, self.receipts.values(), ("lost", "double", "hollow"))
        self._tally.inside += self._line.lost_after + self._line.lost_instead - lost

    async def _try(self, fields: dict[str, str], data: bytes) -> str:
        """`ok`, or the code of the refusal."""
        try:
            whole = self._line.chance.random() < _WHOLE
            sent = send_whole(self._world, fields, data) if whole else send(self._world, form(fields, data))
            asset = (await sent).committed.asset
        except UponceError as error:
            self._tally.counts[f"answered {error.code}"] += 1
            self._tally.expect(error.code in _HONEST, "no definite answer", error.code)
            return error.code
        self._tally.counts["answered ok"] += 1
        self._tally.counts["committed in groups"] += whole
        self.receipts[asset.name.public_id] = Receipt(asset.name.public_id, asset.asset_id, sha256(data).hexdigest())
        return "ok"

    async def _check_told(self, name: str, which: str, answer: str) -> None:
        """Check that the answer agrees with the database."""
        kept = await self._kept(name)
        true = {
            "ok": kept == which,
            "signature_used": kept in ("one", "two"),
            "outcome_unknown": True,
        }.get(answer, kept != which)
        self._tally.expect(true, "wrong answers", f"{name} {which} was told {answer}, and {kept or 'none'} is there")

    async def _check_again(self, name: str, fields: dict[str, str]) -> None:
        """Sent again until the answer is definite: one asset, and not a second one where there was one."""
        before = await self._kept(name)
        answer = ""
        for _ in range(_MOST_RETRIES):
            answer = await self._try(fields, _data(name, "one"))
            if answer in ("ok", "signature_used"):
                break
        after = await self._kept(name)
        spent = before in ("one", "two")
        right = (answer == "signature_used" and after == before) if spent else after == "one"
        self._tally.expect(right, "wrong answers", f"{name} was {before}, then {answer} made it {after}")

    async def _kept(self, name: str) -> str:
        """Return which upload of the asset succeeded."""
        with self._line.quiet():
            asset = await self._world.services.database.find_asset(
                AssetName("demo", ResourceType.RAW, DeliveryType.UPLOAD, name)
            )
        uploads = {sha256(_data(name, which)).hexdigest(): which for which in ("old", "one", "two")}
        return "" if asset is None else uploads[asset.digest.sha256]

    def _sign(self, name: str) -> dict[str, str]:
        return self._world.sign({"public_id": name})


def lose_replies(folder: Path, chance: random.Random, tally: Tally, rounds: int) -> None:
    """So many rounds on one database, then a sweep and the audit."""
    line = Line(random.Random(chance.random()))
    receipts: list[Receipt] = []
    with broken_line(folder, line) as world:
        for number in range(rounds):
            world.swap(attempts=Attempts())  # its locks belong to one event loop
            one = Round(world, folder, line, number, tally)
            asyncio.run(one.play())
            receipts += one.receipts.values()
        give_key(folder)
        with line.quiet():
            asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=DAY))
    tally.audit(folder, receipts)
    assets = count(folder, "assets")
    tally.expect(assets == rounds * SIGNATURES, "assets that are one too many or too few", assets)
    tally.counts["replies lost after COMMIT"] += line.lost_after
    tally.counts["replies lost instead of COMMIT"] += line.lost_instead


def hollow_when_discarding(folder: Path, seed: int) -> int:
    """Return how many rows without bytes the mistaken use case leaves when replies get lost after the commit."""
    tally, line = Tally(), Line(random.Random(seed), after=0.5, instead=0, reading=1)
    streams = patch.object(streamed, "commit", commit_or_discard)
    groups = patch.object(Pipeline, "_committed", arrival_or_discard)
    with broken_line(folder, line) as world, streams, groups:
        asyncio.run(Round(world, folder, line, 0, tally).play())
    return tally.zeros["hollow"]


def _data(name: str, which: str) -> bytes:
    return f"the bytes of upload {which} of {name}, ".encode() * 20
