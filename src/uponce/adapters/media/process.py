"""One decoder process as the server sees it: started without environment, files or terminal, asked line by line."""

import asyncio
import os
import sys
from typing import Any, TypeVar

import msgspec

from uponce.adapters.media.messages import Answer, Job, Ready, Setup
from uponce.adapters.system import ChildHandle

_WORKER = "uponce.adapters.media.worker"
T = TypeVar("T", Ready, Answer)
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {type_: msgspec.json.Decoder(type_) for type_ in (Ready, Answer)}

# One vips thread and one malloc arena: the address space is limited, and headers need no more.
_ENVIRONMENT = {"VIPS_CONCURRENCY": "1", "VIPS_BLOCK_UNTRUSTED": "1", "MALLOC_ARENA_MAX": "1"}


class DecoderLost(Exception):
    """The process ended, or says what no decoder says."""


class DecoderProcess:
    """Use `start`; after any error of `ask` only `close` is left."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        # Signals go through a handle: a number may belong to another process by now, and asyncio's own way of
        # sending them reaps a dead process behind the back of its watcher.
        self._handle = ChildHandle(process.pid)
        self.sandboxed = False
        self.jobs = 0
        # The pool's marks: another one was started in its place; that one is ready.
        self.has_successor = False
        self.worn_out = False

    @classmethod
    async def start(cls, setup: Setup, seconds: float) -> "DecoderProcess":
        """A decoder that is ready for its first job. DecoderLost when it is not after so many seconds."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", _WORKER, msgspec.json.encode(setup).decode(), str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        try:
            decoder = cls(process)
        except ProcessLookupError:
            raise DecoderLost("ended at once") from None
        try:
            async with asyncio.timeout(seconds):
                decoder.sandboxed = (await decoder._read(Ready)).sandboxed
        except TimeoutError:
            await decoder.close()
            raise DecoderLost(f"not ready after {seconds:g} seconds") from None
        except BaseException:
            await decoder.close()
            raise
        return decoder

    @property
    def alive(self) -> bool:
        """False when it is known to have ended; it may have while it was idle."""
        stdout = self._process.stdout
        return self._process.returncode is None and stdout is not None and not stdout.at_eof()

    async def ask(self, job: Job) -> Answer:
        """One job, one answer, never two at a time."""
        self.jobs += 1
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(msgspec.json.encode(job) + b"\n")
        return await self._read(Answer)

    async def _read(self, type_: type[T]) -> T:
        stdout = self._process.stdout
        assert stdout is not None
        try:
            line = await stdout.readuntil(b"\n")
            message: T = _DECODERS[type_].decode(line)
            return message
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, msgspec.MsgspecError) as error:
            raise DecoderLost(str(error)) from error

    def kill(self) -> None:
        """At once, whatever state it is in; repeating it is fine."""
        self._handle.kill()

    async def close(self) -> None:
        """Killed and reaped, and its pipes closed."""
        self.kill()
        self._handle.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()
