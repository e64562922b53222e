"""A pool for one scenario, and a look at its processes from outside."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import uvloop

from uponce.adapters.media.pool import DecoderPool
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType

T = TypeVar("T")
# Of the fixtures `avif` and `tiff`: ordinary pictures that need a decoder.
AVIF = MediaFacts(ResourceType.IMAGE, "avif", 160, 120, 1)
TIFF = MediaFacts(ResourceType.IMAGE, "tiff", 160, 120, 1)


def run(root: Path, scenario: Callable[[DecoderPool], Awaitable[T]], **options: float) -> T:
    """Start a pool over `root`, play the scenario, close the pool, and see that no process is left.

    On uvloop, as a server does: asyncio's own loop starts processes without the files that are inheritable. Without
    `job_seconds` a file may take as long as a machine stalls.
    """

    async def play() -> T:
        pool = DecoderPool(Limits(), [str(root)], **options)  # type: ignore[arg-type]
        if "job_seconds" not in options:
            pool._clock_seconds = 60
        await pool.start()
        try:
            return await scenario(pool)
        finally:
            await pool.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(play())
    assert decoder_pids() == []
    return outcome


def inspect(root: Path, content: bytes, requested: ResourceType | None = None) -> MediaFacts:
    """Return the facts of one file, whose name has no extension."""
    path = root / "spooled"
    path.write_bytes(content)
    return run(root, lambda pool: pool.inspect(str(path), requested), workers=1)


async def kill_idle(pool: DecoderPool) -> None:
    """Kill all decoders, and return when the loop knows that."""
    processes = list(pool._all)
    for process in processes:
        os.kill(process._process.pid, signal.SIGKILL)
    for process in processes:
        await process._process.wait()


def decoder_pids(parent: int | None = None) -> list[int]:
    """The living decoder processes that `parent`, or this process, has started."""
    children = [child.pid for child in psutil.Process(parent).children()]
    return [pid for pid in children if b"uponce.adapters.media.worker" in _command(pid)]


def status(pid: int, name: str) -> int:
    """A number of /proc/PID/status; memory in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
