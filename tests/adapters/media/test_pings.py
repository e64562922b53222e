"""Pings: they see whether decoders answer, and no file waits for them."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.adapters.media.pools import AVIF, decoder_pids, kill_idle, run
from uponce.adapters.media.pool import DecoderPool
from uponce.core.errors import ServerBusy
from uponce.core.values import MediaFacts, Payer


def test_ping(tmp_path: Path) -> None:
    """Returns while decoders answer, raises when they do not."""

    async def scenario(pool: DecoderPool) -> None:
        await pool.ping()
        for pid in decoder_pids():
            os.kill(pid, signal.SIGSTOP)
        pool._clock_seconds = 0.3
        with pytest.raises(ServerBusy):
            await pool.ping()

    run(tmp_path, scenario, workers=1, job_seconds=2)


def test_no_file_waits_for_pings(tmp_path: Path, avif: str) -> None:
    """Pings never stop, as if strangers asked for readiness, and the payer of the file used a decoder before."""
    payer = Payer(api_key="key")

    async def scenario(pool: DecoderPool) -> None:
        pool._turns._keys.charge(payer.api_key, 1)

        async def ping() -> None:
            while True:
                await pool.ping()

        tasks = [asyncio.create_task(ping()) for _ in range(20)]
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(pool.inspect(avif, None, payer), 60) == AVIF
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run(tmp_path, scenario, workers=1)


def test_a_ping_returns_when_a_busy_decoder_answers_for_its_file(tmp_path: Path, avif: str) -> None:
    """Files always wait, so a ping would never get a decoder."""

    async def scenario(pool: DecoderPool) -> None:
        [pid] = decoder_pids()
        os.kill(pid, signal.SIGSTOP)
        files = [asyncio.create_task(pool.inspect(avif, None)) for _ in range(2)]
        await asyncio.sleep(0.05)
        ping = asyncio.create_task(pool.ping())
        await asyncio.sleep(0.05)
        assert not ping.done()
        os.kill(pid, signal.SIGCONT)
        await ping
        assert await asyncio.gather(*files) == [AVIF, AVIF]

    run(tmp_path, scenario, workers=1)


def test_a_ping_fails_while_busy_decoders_hang(tmp_path: Path, avif: str) -> None:
    async def scenario(pool: DecoderPool) -> None:
        file = await hanging(pool, avif)
        with pytest.raises(ServerBusy, match=r"The decoders do not answer\."):
            await pool.ping()
        file.cancel()

    run(tmp_path, scenario, workers=1, queue_seconds=0.3)


def test_a_ping_returns_once_a_decoder_that_hangs_has_a_successor(tmp_path: Path, avif: str) -> None:
    async def scenario(pool: DecoderPool) -> None:
        file = await hanging(pool, avif)
        ping = asyncio.create_task(pool.ping())
        await asyncio.sleep(0.05)
        assert not ping.done()
        file.cancel()
        await ping

    run(tmp_path, scenario, workers=1)


async def hanging(pool: DecoderPool, path: str) -> "asyncio.Task[MediaFacts]":
    """A file that the only decoder never finishes."""
    [pid] = decoder_pids()
    os.kill(pid, signal.SIGSTOP)
    file = asyncio.create_task(pool.inspect(path, None))
    await asyncio.sleep(0.05)
    return file


def test_a_ping_sees_decoders_that_died_idle_replaced(tmp_path: Path) -> None:
    async def scenario(pool: DecoderPool) -> None:
        await kill_idle(pool)
        await pool.ping()

    run(tmp_path, scenario, workers=2)
