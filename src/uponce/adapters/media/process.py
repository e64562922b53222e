"""One decoder process, from the server's side. It starts without environment, files or terminal."""

import asyncio
import os
import signal
import sys
from contextlib import suppress

import msgspec

from uponce.adapters.media.messages import DecoderAnswer, Job, Setup

_WORKER = "uponce.adapters.media.worker"
_ANSWERS = msgspec.json.Decoder(DecoderAnswer)

# One vips thread and one malloc arena: memory is limited, and headers need no more.
_ENVIRONMENT = {"VIPS_CONCURRENCY": "1", "VIPS_BLOCK_UNTRUSTED": "1", "MALLOC_ARENA_MAX": "1"}


class DecoderLost(Exception):
    """The process ended, or its answer is not one of a decoder."""


class DecoderKilled(DecoderLost):
    """Another process ended it, such as the kernel when memory is short. That says nothing about the file."""


class DecoderTimeUsed(Exception):
    """The process ended because one file used more CPU time than allowed."""


class DecoderProcess:
    """A decoder process. Begin with `start`. After any error of `ask`, only `close` is possible."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.sandboxed = False
        self.jobs = 0
        # The pool's marks: its successor was started; its successor is ready.
        self.has_successor = False
        self.worn_out = False

    @classmethod
    async def start(cls, setup: Setup, seconds: float) -> "DecoderProcess":
        """Return a decoder that is ready for its first job. Raise DecoderLost if it is not within `seconds`."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", _WORKER, msgspec.json.encode(setup).decode(), str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        decoder = cls(process)
        try:
            async with asyncio.timeout(seconds):
                decoder.sandboxed = (await decoder._read()).sandboxed
        except TimeoutError:
            await decoder.close()
            raise DecoderLost(f"it was not ready after {seconds:g} seconds") from None
        except BaseException:
            await decoder.close()
            raise
        return decoder

    @property
    def alive(self) -> bool:
        """Return False if the process is known to have ended: by its exit code, or by a pipe that has closed."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        has_closed = stdin.is_closing() or stdout.at_eof() or stdout.exception() is not None
        return self._process.returncode is None and not has_closed

    async def ask(self, job: Job) -> DecoderAnswer:
        """Return the answer to one job, one at a time. Raise DecoderTimeUsed, DecoderKilled or DecoderLost."""
        self.jobs += 1
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(msgspec.json.encode(job) + b"\n")
        try:
            return await self._read()
        except DecoderLost as lost:
            has_ended = not self.alive
            self.kill()
            code = await self._process.wait()
            if code == -signal.SIGPROF:
                raise DecoderTimeUsed from lost
            if code == -signal.SIGKILL and has_ended:
                raise DecoderKilled(str(lost)) from lost
            raise

    async def _read(self) -> DecoderAnswer:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            return _ANSWERS.decode(await stdout.readuntil(b"\n"))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, msgspec.MsgspecError) as error:
            raise DecoderLost(str(error)) from error

    def kill(self) -> None:
        """End the process at once, in whatever state it is. A second call does nothing."""
        # asyncio's own `kill` would also reap a dead process, and its watcher would not know.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """End and reap the process, and close its pipes."""
        self.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
