"""The decoder pool: warm processes, one file each at a time, killed when they hang and replaced when they die."""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from pathlib import Path

from uponce.adapters.media.formats import Format
from uponce.adapters.media.messages import Answer, Job, Setup
from uponce.adapters.media.process import DecoderLost, DecoderProcess
from uponce.adapters.media.sniff import HEAD_BYTES, admit
from uponce.core.errors import InvalidMedia, MediaTooLarge, ServerBusy, StorageUnavailable, UponceError
from uponce.core.policy import GIB, Limits
from uponce.core.values import MediaFacts, ResourceType

# Libraries leak; a process that has seen so many files gives way to a new one, and works on until that is ready. All
# reach the number at about the same time: uploads would wait for new ones to start (measured: 310 ms).
_JOBS_PER_PROCESS = 10_000
_START_SECONDS = 30.0
_RESTART_PAUSE = 1.0
_ERRORS: dict[str, type[UponceError]] = {
    error.code: error for error in (InvalidMedia, MediaTooLarge, StorageUnavailable)
}


class DecoderPool:
    """The Inspector port over `workers` processes. `roots` are the directories of the files, and must exist.

    One file may take `job_seconds`, waiting for a free process `queue_seconds`; a process may use `memory_bytes`
    of address space. Call `start` first and `close` at the end, in one event loop.
    """

    def __init__(
        self,
        limits: Limits,
        roots: Sequence[str],
        *,
        workers: int = 2,
        job_seconds: float = 10,
        queue_seconds: float = 30,
        memory_bytes: int = GIB,
    ) -> None:
        self._limits = limits
        self._roots = tuple(roots)
        self._size = workers
        self._job_seconds = job_seconds
        self._queue_seconds = queue_seconds
        self._memory_bytes = memory_bytes
        self._all: set[DecoderProcess] = set()
        self._free: asyncio.Queue[DecoderProcess] = asyncio.Queue()
        self._replacements: set[asyncio.Task[None]] = set()
        self._closing = False

    @property
    def sandboxed(self) -> bool:
        """Whether the kernel confines every decoder; without Landlock only the resource limits do."""
        return bool(self._all) and all(process.sandboxed for process in self._all)

    async def start(self) -> None:
        """Return when every decoder is ready; DecoderLost when one is not, at its second try either."""
        started = await asyncio.gather(*(self._add_again() for _ in range(self._size)), return_exceptions=True)
        for outcome in started:
            if isinstance(outcome, BaseException):
                await self.close()
                raise outcome

    async def close(self) -> None:
        """End every decoder; files that are being inspected are answered with ServerBusy."""
        self._closing = True
        await self._close_all()
        while self._replacements:
            await asyncio.gather(*self._replacements)
        await self._close_all()  # those that were just being started

    async def _close_all(self) -> None:
        processes, self._all = self._all, set()
        await asyncio.gather(*(process.close() for process in processes))

    async def inspect(self, path: str, requested: ResourceType | None) -> MediaFacts:
        """See the Inspector port."""
        format_ = admit(_head(path), requested)
        if format_ is None:
            return MediaFacts(ResourceType.RAW)
        answer = await self._decode(path, format_)
        if answer.facts is not None:
            return answer.facts
        error = _ERRORS.get(answer.code or "", InvalidMedia)
        raise error(answer.message, detail=answer.detail)

    async def ping(self) -> None:
        """See the Inspector port; ServerBusy when they do not."""
        try:
            await self._run(Job())
        except (TimeoutError, DecoderLost) as error:
            raise ServerBusy("The decoders do not answer. Send the same request again later.") from error

    async def _decode(self, path: str, format_: Format) -> Answer:
        try:
            return await self._run_again(Job(path, format_.name))
        except TimeoutError as error:
            raise InvalidMedia(
                f"Invalid {format_.kind} file. Reading its header took longer than {self._job_seconds:g} seconds."
            ) from error
        except DecoderLost as error:
            raise InvalidMedia(
                f"Invalid {format_.kind} file. The decoder broke on it.", detail=f"decoder lost: {error}"
            ) from error

    async def _run_again(self, job: Job) -> Answer:
        """A decoder may die by chance, as of the out-of-memory killer; if a second one does, it was the file."""
        with contextlib.suppress(DecoderLost):
            return await self._run(job)
        return await self._run(job)

    async def _run(self, job: Job) -> Answer:
        """Raises TimeoutError or DecoderLost; either way, or when cancelled, the process is not used again."""
        process = await self._take()
        reusable = False
        try:
            async with asyncio.timeout(self._job_seconds):
                answer = await process.ask(job)
            reusable = True
            return answer
        finally:
            self._give_back(process, reusable=reusable)

    async def _take(self) -> DecoderProcess:
        if self._closing:
            raise ServerBusy("The server is shutting down. Send the same upload again later.")
        try:
            async with asyncio.timeout(self._queue_seconds):
                while not (process := await self._free.get()).alive:
                    self._give_back(process, reusable=False)
                return process
        except TimeoutError:
            raise ServerBusy(
                f"All {self._size} decoders have been busy for {self._queue_seconds:g} seconds. "
                "Send the same upload again later.",
                retry_after=round(self._job_seconds) or 1,
            ) from None

    def _give_back(self, process: DecoderProcess, *, reusable: bool) -> None:
        if reusable and not process.worn_out:
            self._free.put_nowait(process)
            if process.jobs == _JOBS_PER_PROCESS:
                process.has_successor = True
                self._in_background(self._relieve(process))
            return
        process.kill()
        self._in_background(self._end(process) if process.has_successor else self._replace(process))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _relieve(self, process: DecoderProcess) -> None:
        """It ends when it comes back from its last file."""
        await self._add_for_certain()
        process.worn_out = True

    async def _replace(self, process: DecoderProcess) -> None:
        await self._end(process)
        await self._add_for_certain()

    async def _end(self, process: DecoderProcess) -> None:
        await process.close()
        self._all.discard(process)

    async def _add_for_certain(self) -> None:
        while not self._closing:
            try:
                await self._add()
                return
            except (DecoderLost, OSError):
                await asyncio.sleep(_RESTART_PAUSE)

    async def _add_again(self) -> None:
        """One that dies by chance while it starts must not end the server, and its sister processes with it."""
        with contextlib.suppress(DecoderLost):
            await self._add()
            return
        await self._add()

    async def _add(self) -> None:
        setup = Setup(self._roots, self._memory_bytes, self._limits)
        process = await DecoderProcess.start(setup, _START_SECONDS)
        self._all.add(process)
        self._free.put_nowait(process)


def _head(path: str) -> bytes:
    """The first bytes of a file that was written a moment ago, and so lies in memory: no thread is worth its while."""
    try:
        with Path(path).open("rb", buffering=0) as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise StorageUnavailable("The staged file cannot be read. Send the upload again.", detail=str(error)) from error
