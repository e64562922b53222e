"""Recorded histories: what sixteen clients saw of a few signatures, over two server processes, aborts and kills.

Each signature's operations must be explained by one moment at which it turned (proof/faults/checker.py).
"""

import asyncio
import base64
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from math import inf
from pathlib import Path
from urllib.parse import urlsplit

from proof.faults.audit import Receipt
from proof.faults.checker import IN_USE, OK, REVOKED, UNKNOWN, UNUSED, USED, Operation, anomalies, anomaly
from proof.faults.clients import LOST, Reply, ask, connected, form
from proof.faults.control import seeded, until_red
from proof.faults.forgeries import BAD, GOOD, forged
from proof.faults.operator import recover
from proof.faults.report import Report
from proof.faults.tally import FOUR, Tally
from tests.server import Server

OPERATIONS = 500
CLIENTS = 16
PER_GRANT = 8
CONTESTED = 5
"""Signatures in use at a time: the clients move on through all of them."""

KILLED = 3
"""One history in so many sees its server killed and started again."""

UPLOADS = {"upload": 55, "abort": 12, "leave": 5}
ACTIONS = UPLOADS | {"status": 20, "revoke": 8}
RESULTS = {
    "ok": OK,
    "signature_used": USED,
    "signature_revoked": REVOKED,
    "signature_in_use": IN_USE,
    "outcome_unknown": UNKNOWN,
    "lost": UNKNOWN,
}
EXPECTED = frozenset({OK, USED, REVOKED, IN_USE, UNKNOWN, UNUSED, "aborted"})
ZEROS = ("anomalies", "unexpected answers", "good histories rejected")
GATHERED_BYTES = "UPONCE_SMALL_BODY_BYTES"
# About half of the uploads are gathered and go in groups. The others are read while they arrive.
LIMITS = {"UPONCE_ATTEMPTS_PER_GRANT": "3", GATHERED_BYTES: "8000"}
WAYS = {"in groups": "1000000", "one by one": "0"}
PAUSE = 0.01

MUTANTS = Path(__file__).parents[1] / "mutants"
BROKEN = {"select-then-insert": "select_then_insert.py", "answers before the commit": "answers_first.py"}


class Recorder:
    """One history. `operations` grows in the order of the returns."""

    def __init__(self, server: Server, chance: random.Random, number: int, operations: int) -> None:
        self._server = server
        self._chance = chance
        self._left = self._all = operations
        self._in_flight = 0
        self._grants = [
            server.signed({"nonce": f"history-{number}-{grant}"}) for grant in range(operations // PER_GRANT)
        ]
        self.operations: list[Operation] = []
        self.receipts: list[Receipt] = []
        self.caught = 0

    async def record(self, with_kill: bool) -> None:
        """Run all clients to their ends, then look once more at every signature."""
        killing = [self._kill(self._chance.randrange(self._all // 4, self._all))] if with_kill else []
        await asyncio.gather(*(self._client(client) for client in range(CLIENTS)), *killing)
        for grant in range(len(self._grants)):
            await self._perform("status", CLIENTS, grant)

    async def _client(self, client: int) -> None:
        while self._left > 0:
            self._left -= 1
            reached = (self._all - self._left) * (len(self._grants) - CONTESTED) // self._all
            (action,) = self._chance.choices(list(ACTIONS), list(ACTIONS.values()))
            if not await self._perform(action, client, reached + self._chance.randrange(CONTESTED)):
                self._left += 1
                await asyncio.sleep(PAUSE)

    async def _kill(self, at: int) -> None:
        while self._left > at or not self._in_flight:
            await asyncio.sleep(PAUSE / 10)
        self.caught = self._in_flight
        self._server.kill()
        await asyncio.to_thread(self._server.start)

    async def _perform(self, action: str, client: int, grant: int) -> bool:
        """False when there was no server to ask."""
        called = time.monotonic()
        self._in_flight += 1
        try:
            result = await (self._upload(action, grant) if action in UPLOADS else self._ask(action, grant))
        except ConnectionError:
            return False
        finally:
            self._in_flight -= 1
        returned = inf if result == UNKNOWN else time.monotonic()
        kind = "upload" if action in UPLOADS else action
        self.operations.append(Operation(kind, result, called, returned, client, grant))
        return True

    async def _upload(self, action: str, grant: int) -> str:
        """Upload. An `abort` stops before the last byte and can never be accepted.

        A `leave` stops after it and never knows.
        """
        data = f"{grant} {len(self.operations)} ".encode() * self._chance.randrange(1, 2000)
        request = form(self._server, self._grants[grant], data)
        async with connected(self._server) as connection:
            await connection.send(request[:-1])
            await asyncio.sleep(self._chance.random() * PAUSE)
            if action == "abort":
                return "aborted"
            await connection.send(request[-1:])
            if action == "leave":
                return UNKNOWN
            reply = await connection.reply()
        if reply.status == 200:
            self.receipts.append(reply.receipt(data))
        return RESULTS.get(reply.verdict, reply.verdict)

    async def _ask(self, action: str, grant: int) -> str:
        reply = await ask(self._server, question(self._server, action, self._grants[grant]))
        return str(reply.body["status"]) if reply.status == 200 else _failure(reply)


def _failure(reply: Reply) -> str:
    return UNKNOWN if reply.status == LOST else RESULTS.get(reply.verdict, reply.verdict)


def question(server: Server, action: str, fields: Mapping[str, str]) -> bytes:
    """Return a POST of signed fields to `…/signatures/<action>`."""
    body = json.dumps(fields).encode()
    credentials = base64.b64encode(":".join(server.browser).encode()).decode()
    head = (
        f"POST /v1_1/{server.cloud}/signatures/{action} HTTP/1.1\r\nHost: {urlsplit(server.base).netloc}\r\n"
        f"Authorization: Basic {credentials}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def two_workers(program: tuple[str, ...] = ("-m", "uponce"), **settings: str) -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory(prefix="uponce-history-") as folder,
        Server(Path(folder) / "data", workers=2, env=LIMITS | settings, program=program) as server,
    ):
        yield server


def record_one(
    server: Server, seed: int, number: int, *, operations: int = OPERATIONS, with_kill: bool = False
) -> Recorder:
    recorder = Recorder(server, random.Random(f"{seed}-{number}"), number, operations)
    asyncio.run(recorder.record(with_kill))
    return recorder


def count_results(operations: list[Operation]) -> Counter[str]:
    return Counter(f"{operation.kind} {operation.result}" for operation in operations)


def control(tally: Tally, seed: int) -> None:
    rejected = sum(bool(anomaly(forged(text))) for text in BAD.values())
    tally.controls["forged histories rejected, of all"] = rejected if rejected == len(BAD) else 0
    for name, text in GOOD.items():
        tally.expect(not anomaly(forged(text)), "good histories rejected", name)
    for (name, file), (way, most) in product(BROKEN.items(), WAYS.items()):
        with two_workers((str(MUTANTS / file),), **{GATHERED_BYTES: most}) as server:

            def attempt(chance: random.Random, server: Server = server) -> int:
                number = chance.getrandbits(40)
                return len(anomalies(record_one(server, seed, number, operations=OPERATIONS // 3).operations))

            until_red(tally, f"{name}, {way}: anomalies in one history", seeded(random.Random(seed), attempt))


def run(seconds: float, seed: int) -> Report:
    until = time.monotonic() + seconds
    tally = Tally(zeros=Counter(dict.fromkeys((*FOUR, *ZEROS), 0)))
    receipts: list[Receipt] = []
    control(tally, seed)
    with two_workers() as server:
        begun, number = time.monotonic(), 0
        while number < KILLED or time.monotonic() < until:
            recorder = record_one(server, seed, number, with_kill=number % KILLED == KILLED - 1)
            number += 1
            for why in anomalies(recorder.operations):
                tally.expect(False, "anomalies", f"history {number}: {why}")
            unexpected = [operation for operation in recorder.operations if operation.result not in EXPECTED]
            tally.expect(not unexpected, "unexpected answers", unexpected)
            tally.counts.update(count_results(recorder.operations))
            tally.counts["operations"] += len(recorder.operations)
            tally.inside += recorder.caught
            receipts += recorder.receipts
        tally.counts["histories"] = number
        tally.counts["kills"] = number // KILLED
        tally.counts["histories a minute"] = int(number * 60 / (time.monotonic() - begun))
        server.stop()
        recover(server.data_dir)
        tally.audit(server.data_dir, receipts)
    return tally.report("history", seed)
