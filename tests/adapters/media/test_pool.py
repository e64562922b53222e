"""The pool when decoders hang, die, are busy or left alone, and what a decoder process may do."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import samples
from tests.adapters.media.hostile import NOT_MEDIA
from tests.adapters.media.pools import AVIF, TIFF, decoder_pids, kill_idle, run, status
from uponce.adapters.media.messages import DecoderAnswer, Job, Setup
from uponce.adapters.media.pool import DecoderPool
from uponce.adapters.media.process import DecoderLost, DecoderProcess
from uponce.core.errors import InvalidMedia, Refused, ServerBusy, SettingRefused
from uponce.core.values import MediaFacts, ResourceType


def test_a_decoder_that_hangs_costs_one_file(tmp_path: Path, avif: str) -> None:
    """After the time for one job it is killed and replaced. It used no processor time, so a disk may be the reason."""

    async def scenario(pool: DecoderPool) -> None:
        [stuck] = decoder_pids()
        os.kill(stuck, signal.SIGSTOP)
        with pytest.raises(ServerBusy, match=r"^Reading the file's header took longer than 0\.5 seconds"):
            await pool.inspect(avif, None)
        pool._clock_seconds = 60
        assert await pool.inspect(avif, None) == AVIF
        assert stuck not in decoder_pids()

    run(tmp_path, scenario, workers=1, job_seconds=0.1)


def test_a_decoder_that_dies_once_costs_nothing(tmp_path: Path, avif: str) -> None:
    """The kernel's out-of-memory killer is not the file's fault: another decoder looks at it."""

    async def scenario(pool: DecoderPool) -> None:
        [victim] = decoder_pids()
        os.kill(victim, signal.SIGSTOP)
        job = asyncio.create_task(pool.inspect(avif, None))
        await asyncio.sleep(0.05)
        os.kill(victim, signal.SIGKILL)
        assert await job == AVIF
        assert len(decoder_pids()) == 1

    run(tmp_path, scenario, workers=1)


def test_decoders_that_died_idle_cost_nothing(tmp_path: Path, avif: str) -> None:
    async def scenario(pool: DecoderPool) -> None:
        await kill_idle(pool)
        assert await pool.inspect(avif, None) == AVIF

    run(tmp_path, scenario, workers=3)


def test_no_signal_goes_to_the_number_of_a_decoder_that_was_reaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have it by now."""
    sent: list[tuple[int, int]] = []

    async def scenario(pool: DecoderPool) -> None:
        [process] = pool._all
        os.kill(process._process.pid, signal.SIGKILL)
        await process._process.wait()
        with monkeypatch.context() as patched:
            patched.setattr(os, "kill", lambda *number_and_signal: sent.append(number_and_signal))
            process.kill()

    run(tmp_path, scenario, workers=1)
    assert sent == []


def test_a_decoder_whose_pipe_is_closed_is_replaced(tmp_path: Path, avif: str) -> None:
    """It has died, and the loop knows only of its pipe yet."""

    async def scenario(pool: DecoderPool) -> None:
        [process] = pool._all
        assert process._process.stdin is not None
        process._process.stdin.close()
        await process._process.stdin.wait_closed()
        assert await pool.inspect(avif, None) == AVIF

    run(tmp_path, scenario, workers=1)


def test_a_system_that_kills_decoders_says_nothing_about_the_file(
    tmp_path: Path, avif: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine short of memory may kill all at once, idle or not. The upload can be sent again."""
    ask, deaths = DecoderProcess.ask, []

    async def die(process: DecoderProcess, job: Job) -> DecoderAnswer:
        deaths.append(job)
        os.kill(process._process.pid, signal.SIGKILL)
        return await ask(process, job)

    async def scenario(pool: DecoderPool) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(DecoderProcess, "ask", die)
            with pytest.raises(ServerBusy, match=r"^The system ended two decoders") as refusal:
                await pool.inspect(avif, None)
        assert len(deaths) == 2
        assert refusal.value.retry_after
        assert await pool.inspect(avif, None) == AVIF

    run(tmp_path, scenario, workers=2)


def test_a_file_that_kills_decoders_is_refused(
    tmp_path: Path, avif: str, tiff: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second; the next file is read as if nothing had been."""
    ask, deaths = DecoderProcess.ask, []

    async def die_of_webp(process: DecoderProcess, job: Job) -> DecoderAnswer:
        if job.format == "avif":
            deaths.append(job)
            os.kill(process._process.pid, signal.SIGSEGV)
        return await ask(process, job)

    async def scenario(pool: DecoderPool) -> None:
        monkeypatch.setattr(DecoderProcess, "ask", die_of_webp)
        with pytest.raises(InvalidMedia, match=r"^Invalid image file\. The decoder ended while reading it"):
            await pool.inspect(avif, None)
        assert len(deaths) == 2
        assert await pool.inspect(tiff, None) == TIFF

    run(tmp_path, scenario, workers=2)


def test_a_cancelled_caller_leaves_no_answer_behind(tmp_path: Path, avif: str, tiff: str) -> None:
    """The next caller gets the facts of the file that it asked for."""

    async def scenario(pool: DecoderPool) -> None:
        [pid] = decoder_pids()
        os.kill(pid, signal.SIGSTOP)
        job = asyncio.create_task(pool.inspect(avif, None))
        await asyncio.sleep(0.05)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await pool.inspect(tiff, None) == TIFF

    run(tmp_path, scenario, workers=1)


def test_waiting_for_a_free_decoder_has_an_end(tmp_path: Path, avif: str) -> None:
    """Then the server is busy, which says nothing about the file."""

    async def scenario(pool: DecoderPool) -> None:
        [pid] = decoder_pids()
        os.kill(pid, signal.SIGSTOP)
        job = asyncio.create_task(pool.inspect(avif, None))
        await asyncio.sleep(0.05)
        with pytest.raises(ServerBusy, match=r"No decoder became free in 0\.3 seconds") as refusal:
            await pool.inspect(avif, None)
        assert refusal.value.retry_after
        os.kill(pid, signal.SIGCONT)
        assert await job == AVIF

    run(tmp_path, scenario, workers=1, queue_seconds=0.3)


def test_close_during_a_job(tmp_path: Path, avif: str) -> None:
    """A file that was being read when the server stops is not called invalid."""

    async def scenario(pool: DecoderPool) -> None:
        [pid] = decoder_pids()
        os.kill(pid, signal.SIGSTOP)
        job = asyncio.create_task(pool.inspect(avif, None))
        await asyncio.sleep(0.05)
        await pool.close()
        with pytest.raises(ServerBusy):
            await job

    run(tmp_path, scenario, workers=1)


def test_a_decoder_that_dies_once_while_it_starts_does_not_fail_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, avif: str
) -> None:
    """Else one process fewer in memory, at the wrong moment, would end the whole server."""
    starts, start = 0, DecoderProcess.start

    async def die_first(setup: Setup, seconds: float) -> DecoderProcess:
        nonlocal starts
        starts += 1
        process = await start(setup, seconds)
        if starts == 1:
            await process.close()
            raise DecoderLost("killed")
        return process

    async def use(pool: DecoderPool) -> None:
        assert await pool.inspect(avif, None) == AVIF

    monkeypatch.setattr(DecoderProcess, "start", die_first)
    run(tmp_path, use, workers=1)
    assert starts == 2


def test_a_root_that_does_not_exist_fails_the_start(tmp_path: Path) -> None:
    """Rather than every file later."""

    async def nothing(pool: DecoderPool) -> None: ...

    with pytest.raises(SettingRefused, match=r"decoders of media do not start: .* Check the memory of this machine"):
        run(tmp_path / "absent", nothing)
    assert decoder_pids() == []


def test_many_files_at_once(tmp_path: Path, avif: str, tiff: str) -> None:
    """Answers do not get mixed up."""

    async def scenario(pool: DecoderPool) -> None:
        facts = await asyncio.gather(*(pool.inspect(path, None) for path in (avif, tiff) * 50))
        assert facts == [AVIF, TIFF] * 50

    run(tmp_path, scenario, workers=2, queue_seconds=240)


@pytest.mark.proof
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif", "tiff", "gif", "mp4", "mov", "webm", "mp3", "wav"])
def test_damaged_files_get_facts_or_a_refusal(tmp_path: Path, name: str) -> None:
    """Torn anywhere, bits flipped anywhere, asked as anything: no other outcome, and the pool lives on."""
    chance = random.Random(name)
    whole = getattr(samples, name)(1)
    path = tmp_path / "spooled"

    def damage(data: bytearray) -> bytes:
        if chance.random() < 0.4:
            return bytes(data[: chance.randrange(1, len(data))])
        reach = chance.choice((64, 1024, len(data)))
        for _ in range(chance.randrange(1, 16)):
            at = chance.randrange(min(reach, len(data)))
            data[at] ^= 1 << chance.randrange(8)
        return bytes(data)

    async def scenario(pool: DecoderPool) -> int:
        refused = 0
        for _ in range(60):
            path.write_bytes(damage(bytearray(whole)))
            try:
                facts = await pool.inspect(str(path), chance.choice((None, ResourceType.IMAGE, ResourceType.VIDEO)))
                assert isinstance(facts, MediaFacts)
            except Refused:
                refused += 1
        path.write_bytes(whole)
        assert (await pool.inspect(str(path), None)).format is not None
        assert all(status(pid, "VmHWM") < 512 * 1024 for pid in decoder_pids())
        return refused

    assert run(tmp_path, scenario, workers=1) > 0


@pytest.mark.parametrize("requested", [ResourceType.IMAGE, ResourceType.VIDEO])
def test_what_is_no_media_never_reaches_a_decoder(tmp_path: Path, requested: ResourceType) -> None:
    """Refused while every decoder stands still."""

    async def scenario(pool: DecoderPool) -> None:
        for pid in decoder_pids():
            os.kill(pid, signal.SIGSTOP)
        for name, content in NOT_MEDIA.items():
            path = tmp_path / f"{name}.{'png' if requested is ResourceType.IMAGE else 'mp4'}"
            path.write_bytes(content)
            with pytest.raises(InvalidMedia):
                await pool.inspect(str(path), requested)

    run(tmp_path, scenario, workers=1, job_seconds=0.2, queue_seconds=5)


def test_a_decoder_starts_without_the_servers_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No environment, no inherited files, no new rights, its own session, memory under a limit."""
    monkeypatch.setenv("UPONCE_SECRET_KEY", "hunter2")
    secret = (tmp_path / "secret").open("w")

    async def scenario(pool: DecoderPool) -> None:
        [pid] = decoder_pids()
        process = Path(f"/proc/{pid}")
        assert b"hunter2" not in process.joinpath("environ").read_bytes()
        files = [os.readlink(fd) for fd in process.joinpath("fd").iterdir()]
        assert files.count(os.devnull) == 3
        assert len(files) == 3 + 2  # the pipes of the jobs and of the answers
        assert os.getsid(pid) == pid
        limits = process.joinpath("limits").read_text()
        assert f"Max data size             {512 * 1024 * 1024}" in limits
        assert process.joinpath("oom_score_adj").read_text() == "1000\n"
        assert status(pid, "Threads") == 1
        assert status(pid, "NoNewPrivs") == (1 if pool.sandboxed else 0)

    with secret:
        os.set_inheritable(secret.fileno(), True)
        run(tmp_path, scenario, workers=1, memory_bytes=512 * 1024 * 1024)


ORPHANING = """
import asyncio, sys
from uponce.adapters.media.messages import DecoderAnswer, Job, Setup
from uponce.adapters.media.pool import DecoderPool
from uponce.core.policy import Limits
async def main():
    pool = DecoderPool(Limits(), [sys.argv[1]])
    await pool.start()
    print("ready", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_decoders_do_not_outlive_the_server(tmp_path: Path) -> None:
    """Not even those that stand still, when the server is killed without a chance to tidy up."""
    with subprocess.Popen([sys.executable, "-c", ORPHANING, str(tmp_path)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        pids = decoder_pids(server.pid)
        assert len(pids) == 2
        os.kill(pids[0], signal.SIGSTOP)
        server.kill()
    deadline = time.monotonic() + 120  # of a busy machine; by themselves they would stay for ever
    while any(Path(f"/proc/{pid}/cmdline").exists() and _runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False
