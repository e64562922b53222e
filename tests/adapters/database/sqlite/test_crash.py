"""Killed with SIGKILL, and the order of fsync and answer as the kernel sees it."""

import asyncio
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.databases import attempt, draft, grant, open_sqlite

ROOT = Path(__file__).parents[4]
SERVER = """
import asyncio, sys
from pathlib import Path
from tests.contract.databases import CALLER, KEY, draft, grant, open_sqlite

async def upload(database, number):
    await database.commit(grant(f"n{number}"), draft(f"p{number}", blob=f"b{number}"), CALLER)
    sys.stdout.write(f"acknowledged {number}\\n")
    sys.stdout.flush()

async def serve(database, total, at_once):
    if not await database.list_keys():
        await database.add_key(KEY)
    for first in range(0, total, at_once):
        await asyncio.gather(*(upload(database, number) for number in range(first, first + at_once)))

path, total, at_once = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
database = open_sqlite(path)
asyncio.run(serve(database, total, at_once))
database.close()
"""


@pytest.mark.parametrize("acknowledged", [1, 37, 150])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, acknowledged: int) -> None:
    path = tmp_path / "uponce.db"
    command = [sys.executable, "-c", SERVER, str(path), "100000", "8"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline() for _ in range(acknowledged)]
        server.kill()
        lines += server.stdout.readlines()
    told = [int(line.split()[1]) for line in lines if line.endswith("\n")]
    assert len(told) >= acknowledged

    async def check() -> None:
        for number in told:
            assert await database.find_commit(f"b{number}") is not None
            assert await attempt(database, grant(f"n{number}"), draft(blob="late")) == "signature_used"
        for number in range(max(told) + 20):
            record = await database.find_grant(grant(f"n{number}").key)
            assert (record is None) == (await database.find_commit(f"b{number}") is None), "all of it or none"

    database = open_sqlite(path)
    asyncio.run(check())
    database.close()


@pytest.mark.parametrize("level", ["FULL", "NORMAL"])
@pytest.mark.skipif(shutil.which("strace") is None, reason="NEEDS strace: the order of fsync and answer is NOT proven")
def test_the_log_is_synced_before_anyone_is_told(tmp_path: Path, level: str) -> None:
    """With NORMAL, the negative control, answers come without a sync in between."""
    program = SERVER
    if level == "NORMAL":
        weaken = "from uponce.adapters.database.sqlite import connection as c\nc.check_durable = lambda _: None\n"
        program = f"{weaken}c._SETTINGS = ('PRAGMA synchronous = NORMAL',)\n{SERVER}"
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-y", "-o", str(trace), "-e", "trace=fdatasync,fsync,write,pwrite64"]
    command = [*strace, sys.executable, "-c", program, str(tmp_path / "u.db"), "30", "1"]
    subprocess.run(command, check=True, timeout=240, cwd=ROOT)
    assert (unsynced_answers(trace.read_text()) == 0) == (level == "FULL")


def unsynced_answers(trace: str) -> int:
    """Answers on standard output that came while something written to the log was not synced yet."""
    dirty, syncing, bad, answers = False, set[str](), 0, 0
    for line in trace.splitlines():
        thread = line.split()[0]
        if re.search(r"pwrite64\(\d+<[^>]*-wal>", line):
            dirty = True
        elif re.search(r"sync\(\d+<[^>]*-wal>", line):
            syncing.add(thread)
        elif "acknowledged" in line:
            answers, bad = answers + 1, bad + dirty
        if thread in syncing and line.endswith("= 0"):  # an unfinished call ends on a later line of its thread
            syncing.remove(thread)
            dirty = False
    assert answers == 30
    return bad
