"""How decoders are replaced: after their share of work, and after an error of the replacement itself."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.adapters.media.pools import AVIF, decoder_pids, run
from uponce.adapters.media.messages import Setup
from uponce.adapters.media.pool import DecoderPool
from uponce.adapters.media.process import DecoderProcess


def test_a_decoder_gives_way_after_its_share_of_work(
    tmp_path: Path, avif: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its libraries leak cannot add up to a failure."""
    monkeypatch.setattr("uponce.adapters.media.pool._JOBS_PER_PROCESS", 3)

    async def scenario(pool: DecoderPool) -> None:
        seen = set[int]()
        async with asyncio.timeout(60):
            while len(seen) < 3:
                assert await pool.inspect(avif, None) == AVIF
                seen.update(decoder_pids())
            while len(decoder_pids()) > 1:
                assert await pool.inspect(avif, None) == AVIF

    run(tmp_path, scenario, workers=1)


def test_decoders_work_on_until_their_successors_are_ready(
    tmp_path: Path, avif: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All come to the end of their share together; no request waits for new ones to start."""
    monkeypatch.setattr("uponce.adapters.media.pool._JOBS_PER_PROCESS", 3)
    start = DecoderProcess.start

    async def scenario(pool: DecoderPool) -> None:
        may_start = asyncio.Event()

        async def held_up(setup: Setup, seconds: float) -> DecoderProcess:
            await may_start.wait()
            return await start(setup, seconds)

        monkeypatch.setattr(DecoderProcess, "start", held_up)
        before = set(decoder_pids())
        try:
            for _ in range(20):
                assert await pool.inspect(avif, None) == AVIF
            assert set(decoder_pids()) == before
        finally:
            may_start.set()
        async with asyncio.timeout(60):
            while before & set(decoder_pids()):
                assert await pool.inspect(avif, None) == AVIF

    run(tmp_path, scenario, workers=2, queue_seconds=60)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_decoder_that_dies_while_its_successor_starts_is_replaced_once(
    tmp_path: Path, avif: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    start = DecoderProcess.start

    async def scenario(pool: DecoderPool) -> None:
        monkeypatch.setattr("uponce.adapters.media.pool._JOBS_PER_PROCESS", 1)
        may_start, starts = asyncio.Event(), list[Setup]()

        async def held_up(setup: Setup, seconds: float) -> DecoderProcess:
            starts.append(setup)
            await may_start.wait()
            return await start(setup, seconds)

        monkeypatch.setattr(DecoderProcess, "start", held_up)
        [pid] = decoder_pids()
        assert await pool.inspect(avif, None) == AVIF
        monkeypatch.setattr("uponce.adapters.media.pool._JOBS_PER_PROCESS", 1000)
        try:
            if when == "after":
                may_start.set()
                await asyncio.gather(*pool._replacements)
            os.kill(pid, signal.SIGKILL)
        finally:
            may_start.set()
        assert await pool.inspect(avif, None) == AVIF
        await asyncio.gather(*pool._replacements)
        assert len(decoder_pids()) == len(starts) == 1
        assert pid not in decoder_pids()

    run(tmp_path, scenario, workers=1)


@pytest.mark.parametrize("step", ["start", "close"])
def test_an_unexpected_error_of_a_replacement_is_logged_and_the_pool_keeps_its_size(
    tmp_path: Path, avif: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    monkeypatch.setattr("uponce.adapters.media.pool._RESTART_PAUSE", 0.01)
    real, calls = getattr(DecoderProcess, step), 0

    async def fail_once(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("never seen before")
        return await real(*arguments)

    async def scenario(pool: DecoderPool) -> None:
        [pid] = decoder_pids()
        monkeypatch.setattr(DecoderProcess, step, fail_once)
        os.kill(pid, signal.SIGKILL)
        assert await pool.inspect(avif, None) == AVIF
        assert pid not in decoder_pids()

    run(tmp_path, scenario, workers=1)
    assert [record.exc_text for record in caplog.records if "never seen before" in (record.exc_text or "")]
