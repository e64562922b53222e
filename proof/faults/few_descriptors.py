"""A real server that may open only a few more files, and many connections at once: EMFILE wherever one is made.

Connections may be dropped and uploads refused; what was answered is true, and the server goes on as soon as there
are descriptors again.
"""

import asyncio
import os
import random
import resource
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from proof.faults.audit import Receipt
from proof.faults.clients import Reply, ask, connected, form, hold_back, release
from proof.faults.operator import recover
from proof.faults.sitting import UNKNOWN
from proof.faults.small_disk import RECOVERY_SECONDS
from proof.faults.tally import Tally
from tests.server import Server

CONNECTIONS = 60
_LARGEST = 100_000
_ALLOWED = {"ok", "lost", "storage_unavailable", "database_unavailable", "outcome_unknown", "server_busy"}

Upload = tuple[dict[str, str], bytes]


def exhaust(folder: Path, chance: random.Random, tally: Tally, rounds: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data_dir = folder / "data"
    receipts: list[Receipt] = []
    with Server(data_dir) as server:
        for number in range(rounds):
            asyncio.run(_round(server, number, chance, tally, receipts))
        server.stop()
    recover(data_dir)
    tally.audit(data_dir, receipts)


async def _round(server: Server, number: int, chance: random.Random, tally: Tally, receipts: list[Receipt]) -> None:
    uploads = [_upload(server, f"{number}-{i}", chance) for i in range(CONNECTIONS)]
    before = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    few = len(os.listdir(f"/proc/{server.pid}/fd")) + chance.randrange(1, CONNECTIONS)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (few, before[1]))
    replies = await _all_at_once(server, uploads)
    tally.counts["rounds without descriptors"] += 1
    for reply in replies:
        tally.counts[f"answered {reply.verdict}"] += 1
        tally.inside += reply.verdict != "ok"
        tally.expect(reply.verdict in _ALLOWED, "no definite answer", f"{reply.status} {reply.body}")
    receipts += [reply.receipt(data) for reply, (_, data) in zip(replies, uploads, strict=True) if reply.status == 200]
    await _recover(server, _upload(server, f"{number}-after", chance), tally, receipts)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, before)
    for reply, (fields, data) in zip(replies, uploads, strict=True):
        again = await ask(server, form(server, fields, data))
        expected = {"ok": ("signature_used",)} | dict.fromkeys(UNKNOWN, ("ok", "signature_used"))
        right = again.verdict in expected.get(reply.verdict, ("ok",))
        tally.expect(right, "wrong answers", f"{reply.verdict}, then {again.verdict}")
        if again.status == 200:
            receipts.append(again.receipt(data))


async def _all_at_once(server: Server, uploads: Sequence[Upload]) -> list[Reply]:
    requests = [form(server, fields, data) for fields, data in uploads]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(server)) for _ in requests]
        await hold_back(connections, requests)
        return await release(connections, requests)


async def _recover(server: Server, upload: Upload, tally: Tally, receipts: list[Receipt]) -> None:
    """Upload again. The connections are closed, but the limit remains: it is enough for one upload after the other."""
    fields, data = upload
    deadline = time.monotonic() + RECOVERY_SECONDS
    asked, reply = time.monotonic(), await ask(server, form(server, fields, data))
    while reply.status != 200 and asked < deadline:
        await asyncio.sleep(0.1)
        asked, reply = time.monotonic(), await ask(server, form(server, fields, data))
    tally.expect(reply.status == 200, "recoveries too late", f"{reply.verdict} with descriptors free again")
    if reply.status == 200:
        receipts.append(reply.receipt(data))


def _upload(server: Server, name: str, chance: random.Random) -> Upload:
    return server.signed({"public_id": f"descriptors-{name}"}), chance.randbytes(chance.randrange(1, _LARGEST))
