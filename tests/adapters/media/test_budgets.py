"""What one file and one grant may cost the decoders: processor time and memory."""

import inspect
import os
import signal
from pathlib import Path

import pytest

from tests.adapters.media.pools import AVIF, decoder_pids, run
from tests.hostile.bombs import fragments, png, png_chunk
from uponce.adapters.media.messages import DecoderAnswer, Job
from uponce.adapters.media.pool import DecoderPool
from uponce.adapters.media.process import DecoderKilled, DecoderProcess, DecoderTimeUsed
from uponce.config import Settings
from uponce.core.errors import InvalidMedia, MediaTooLarge, ServerBusy
from uponce.core.policy import MIB
from uponce.core.values import Payer


def test_decoders_have_the_bounds_that_are_tested() -> None:
    """Tests of bombs use the defaults of the pool: two seconds for a file, 448 MiB, ten seconds for a signature."""
    defaults, settings = inspect.signature(DecoderPool).parameters, Settings()
    used = (settings.decoder_seconds, settings.decoder_memory, settings.decoder_seconds_per_grant)
    tested = tuple(defaults[name].default for name in ("job_seconds", "memory_bytes", "grant_seconds"))
    assert used == tested == (2, 448 * MIB, 10)


def test_a_file_that_uses_too_much_processor_time_is_refused(
    tmp_path: Path, avif: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel ends the decoder in the middle of a library's work. The file is not tried again."""
    monkeypatch.setattr("uponce.adapters.media.pool._CLOCK_PER_CPU", 1000)
    bomb = tmp_path / "bomb"
    bomb.write_bytes(png(extra=png_chunk(b"zzZz", b"") * 6_000_000))

    async def scenario(pool: DecoderPool) -> None:
        with pytest.raises(InvalidMedia, match=r"longer than 0\.1 seconds of processor time\.") as refusal:
            await pool.inspect(str(bomb), None)
        assert isinstance(refusal.value.__cause__, DecoderTimeUsed)
        assert await pool.inspect(avif, None) == AVIF

    run(tmp_path, scenario, workers=1, job_seconds=0.1)


def test_the_decoder_time_of_one_grant_has_a_limit(tmp_path: Path, avif: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grant is then refused before a decoder is asked, and another grant is not."""
    monkeypatch.setattr("uponce.adapters.media.pool._CLOCK_PER_CPU", 1000)
    payer, other = Payer("aa", "K", "A"), Payer("bb", "K", "A")
    bomb = tmp_path / "bomb"
    bomb.write_bytes(png(extra=png_chunk(b"zzZz", b"") * 6_000_000))

    async def scenario(pool: DecoderPool) -> None:
        for _ in range(2):
            with pytest.raises(InvalidMedia, match=r"longer than 0\.1 seconds of processor time"):
                await pool.inspect(str(bomb), None, payer)
            assert await pool.inspect(avif, None, other) == AVIF
        with pytest.raises(InvalidMedia, match=r"used 0\.6 seconds of decoder time, the limit"):
            await pool.inspect(avif, None, payer)
        assert await pool.inspect(avif, None, other) == AVIF

    run(tmp_path, scenario, workers=1, job_seconds=0.1, grant_seconds=0.6)


def test_decoders_that_hung_use_a_grant_up_and_prove_nothing_about_its_file(tmp_path: Path, avif: str) -> None:
    payer, other = Payer("aa", "K", "A"), Payer("bb", "K", "A")

    async def scenario(pool: DecoderPool) -> None:
        for _ in range(2):
            [pid] = decoder_pids()
            os.kill(pid, signal.SIGSTOP)
            pool._clock_seconds = 0.5
            with pytest.raises(ServerBusy, match="Send the same upload again later"):
                await pool.inspect(avif, None, payer)
            pool._clock_seconds = 60
            assert await pool.inspect(avif, None, other) == AVIF
        with pytest.raises(
            ServerBusy, match=r"used 0\.7 seconds of decoder time, the limit\. Sign again, and send the"
        ) as refused:
            await pool.inspect(avif, None, payer)
        assert refused.value.retry_after == 600
        assert await pool.inspect(avif, None, other) == AVIF

    run(tmp_path, scenario, workers=1, job_seconds=0.1, grant_seconds=0.7)


def test_decoders_that_the_system_ended_prove_nothing_about_a_file(
    tmp_path: Path, avif: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after they used the time of its grant: the answer stays 503, and the file is no longer tried."""
    asked = 0

    async def killed(process: DecoderProcess, job: Job) -> DecoderAnswer:
        nonlocal asked
        asked += 1
        raise DecoderKilled("killed")

    async def scenario(pool: DecoderPool) -> None:
        for _ in range(20):
            with pytest.raises(ServerBusy):
                await pool.inspect(avif, None, Payer("aa", "K", "A"))

    monkeypatch.setattr(DecoderProcess, "ask", killed)
    run(tmp_path, scenario, workers=2, grant_seconds=1)
    assert asked == 4


def test_a_file_that_needs_too_much_memory_is_refused_by_the_limit(tmp_path: Path, avif: str) -> None:
    bomb = tmp_path / "bomb"
    bomb.write_bytes(fragments(100_000_000))

    async def scenario(pool: DecoderPool) -> None:
        with pytest.raises(MediaTooLarge, match=rf"needs more than {128 * 1024 * 1024} bytes of memory, the limit"):
            await pool.inspect(str(bomb), None)
        assert await pool.inspect(avif, None) == AVIF

    run(tmp_path, scenario, workers=1, memory_bytes=128 * 1024 * 1024)
