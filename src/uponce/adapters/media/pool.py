"""The decoder pool: warm processes, one file each at a time, killed when they hang and replaced when they die."""

import asyncio
import contextlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from uponce.adapters.media.messages import DecoderAnswer, Job, Setup
from uponce.adapters.media.process import DecoderKilled, DecoderLost, DecoderProcess, DecoderTimeUsed
from uponce.adapters.media.sniff import HEAD_BYTES, SCAN_BYTES, admit, ordinary_facts
from uponce.adapters.media.turns import Turn, Turns
from uponce.adapters.system import LINUX
from uponce.core.errors import (
    InvalidMedia,
    MediaTooLarge,
    ServerBusy,
    SettingRefused,
    StorageUnavailable,
    UponceError,
)
from uponce.core.formats import Format
from uponce.core.policy import MIB, Limits, judge_dimensions
from uponce.core.values import MediaFacts, Payer, ResourceType

# Libraries leak, so a process is replaced after so many files. It works until its successor is ready: all processes
# reach the number at about the same time, and a start takes 310 ms.
_JOBS_PER_PROCESS = 10_000
_START_SECONDS = 30.0
_RESTART_PAUSE = 1.0
_RESTART_SECONDS = 0.3  # the cost of the successor of an ended process
# A loaded machine gives a decoder less than a whole processor: honest files get more time on the clock.
_CLOCK_PER_CPU = 5
_USED_UP_SECONDS = 600  # long: this signature stays refused
_MOST_GRANTS = 10_000
_ERRORS: dict[str, type[UponceError]] = {
    error.code: error for error in (InvalidMedia, MediaTooLarge, StorageUnavailable)
}
_UNKNOWN = Payer()
_CURE = "Check the memory of this machine, and UPONCE_DECODER_MEMORY."
log = logging.getLogger("uponce")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Wasted:
    """Decoder seconds of one grant: for refused files, and for files whose decoder ended without the file's fault."""

    refused: float = 0
    lost: float = 0


class DecoderPool:
    """The Inspector port over `workers` processes. `roots` are the folders of the files, and must exist.

    One file may use `job_seconds` of CPU time and `memory_bytes`, and wait `queue_seconds` for a process. Files of one
    grant that got no facts may use `grant_seconds`. Call `start` first and `close` at the end, in one event loop.
    """

    def __init__(
        self,
        limits: Limits,
        roots: Sequence[str],
        *,
        workers: int = 2,
        job_seconds: float = 2,
        grant_seconds: float = 10,
        queue_seconds: float = 30,
        memory_bytes: int = 448 * MIB,
    ) -> None:
        self._setup = Setup(tuple(roots), memory_bytes, job_seconds, limits)
        self._size = workers
        self._job_seconds = job_seconds
        self._clock_seconds = job_seconds * _CLOCK_PER_CPU
        self._grant_seconds = grant_seconds
        self._queue_seconds = queue_seconds
        self._all: set[DecoderProcess] = set()
        self._turns: Turns[DecoderProcess] = Turns(workers, time.monotonic)
        self._wasted: OrderedDict[str, _Wasted] = OrderedDict()
        self._replacements: set[asyncio.Task[None]] = set()
        self._sign_of_life = asyncio.Event()
        self._closing = False

    @property
    def sandboxed(self) -> bool:
        """Return whether the kernel confines every decoder. Without Landlock only the resource limits do."""
        return bool(self._all) and all(process.sandboxed for process in self._all)

    async def start(self) -> None:
        """Return when every decoder is ready. Raise SettingRefused if one fails to start twice."""
        started = await asyncio.gather(*(_twice(self._add) for _ in range(self._size)), return_exceptions=True)
        for outcome in started:
            if isinstance(outcome, BaseException):
                await self.close()
                if isinstance(outcome, DecoderLost):
                    raise SettingRefused(f"The decoders of media do not start: {outcome}. {_CURE}") from outcome
                raise outcome
        if LINUX and not self.sandboxed:
            log.warning("the decoders of media are not confined: `uponce doctor` says why")

    async def close(self) -> None:
        """End every decoder. Files that are being inspected get ServerBusy."""
        self._closing = True
        await self._close_all()
        while self._replacements:
            # Since Python 3.12 a gather of tasks that are done returns at once, before their callbacks could run.
            under_way, self._replacements = self._replacements, set()
            await asyncio.gather(*under_way)
        await self._close_all()  # those that were starting

    async def _close_all(self) -> None:
        processes, self._all = self._all, set()
        await asyncio.gather(*(process.close() for process in processes))

    async def inspect(self, path: str, requested: ResourceType | None, payer: Payer = _UNKNOWN) -> MediaFacts:
        """See the Inspector port."""
        head, size = _head(path)
        format_ = admit(head[:HEAD_BYTES], requested)
        facts = ordinary_facts(head, size, format_, self._setup.limits)
        if facts is not None:
            return judge_dimensions(facts, self._setup.limits)
        assert format_ is not None
        self._refuse_used_up(payer, format_)
        answer = await self._decode(Job(path, format_.name), format_, payer)
        if answer.facts is not None:
            return answer.facts
        self._waste(payer, refused=answer.seconds)
        error = _ERRORS.get(answer.code or "", InvalidMedia)
        raise error(answer.message, detail=answer.detail)

    async def ping(self) -> None:
        """Return when the decoders answer. Raise ServerBusy if they do not.

        A free decoder is asked. While files use all of them, the next answer for a file is enough: no file waits for a
        ping.
        """
        try:
            turn = self._take_free()
            if turn is not None:
                await self._use(turn, Job())
                return
            async with asyncio.timeout(self._queue_seconds):
                await self._sign_of_life.wait()
        except (TimeoutError, DecoderTimeUsed, DecoderLost) as error:
            raise ServerBusy("The decoders do not answer. Send the same request again later.") from error

    def _refuse_used_up(self, payer: Payer, format_: Format) -> None:
        wasted = self._wasted.get(payer.holder, _Wasted())
        if wasted.refused >= self._grant_seconds:
            raise InvalidMedia(
                f"Invalid {format_.kind} file. Files that were refused under this signature used "
                f"{self._grant_seconds:g} seconds of decoder time, the limit. Sign again, and send another file."
            )
        if wasted.refused + wasted.lost >= self._grant_seconds:
            raise ServerBusy(
                f"Decoders that did not finish files of this signature used {self._grant_seconds:g} seconds of decoder "
                "time, the limit. Sign again, and send the same file later.",
                retry_after=_USED_UP_SECONDS,
            )

    def _waste(self, payer: Payer, *, refused: float = 0, lost: float = 0) -> None:
        if payer.grant:
            wasted = self._wasted.pop(payer.holder, _Wasted())
            self._wasted[payer.holder] = _Wasted(wasted.refused + refused, wasted.lost + lost)
            if len(self._wasted) > _MOST_GRANTS:
                self._wasted.popitem(last=False)

    async def _decode(self, job: Job, format_: Format, payer: Payer) -> DecoderAnswer:
        try:
            return await _twice(lambda: self._run(job, payer))
        except DecoderTimeUsed as error:
            raise InvalidMedia(
                f"Invalid {format_.kind} file. Reading its header took longer than {self._job_seconds:g} seconds of "
                "processor time. Convert it to a simpler file."
            ) from error
        except TimeoutError as error:  # with processor time left: the disk or the machine is overloaded
            raise ServerBusy(
                f"Reading the file's header took longer than {self._clock_seconds:g} seconds. Send the same upload "
                "again later."
            ) from error
        except DecoderKilled as error:
            raise ServerBusy(
                "The system ended two decoders while they read the file. Send the same upload again later.",
                detail="decoders were killed: see whether this machine, or the server's container, is short of memory",
            ) from error
        except DecoderLost as error:
            raise InvalidMedia(
                f"Invalid {format_.kind} file. The decoder ended while reading it. Convert it to another format.",
                detail=f"decoder lost: {error}",
            ) from error

    async def _run(self, job: Job, payer: Payer) -> DecoderAnswer:
        return await self._use(await self._take(payer), job)

    async def _use(self, turn: Turn[DecoderProcess], job: Job) -> DecoderAnswer:
        """Return the answer. Raise TimeoutError, DecoderTimeUsed or DecoderLost.

        After one of these, or if the caller is cancelled, the process ends.
        """
        begun, answer, file_to_blame = time.monotonic(), None, False
        try:
            async with asyncio.timeout(self._clock_seconds):
                answer = await turn.decoder.ask(job)
            return answer
        except (DecoderTimeUsed, DecoderLost) as error:
            file_to_blame = not isinstance(error, DecoderKilled)
            raise
        finally:
            if answer is None:
                seconds = min(time.monotonic() - begun, self._job_seconds) + _RESTART_SECONDS
                if file_to_blame:
                    self._waste(turn.payer, refused=seconds)
                else:
                    self._waste(turn.payer, lost=seconds)
            else:
                seconds = answer.seconds
                self._show_life()
            self._turns.end(turn, seconds)
            self._give_back(turn.decoder, reusable=answer is not None)

    def _take_free(self) -> Turn[DecoderProcess] | None:
        self._refuse_if_closing()
        while (turn := self._turns.take_free(_UNKNOWN)) is not None and not turn.decoder.alive:
            self._drop(turn)
        return turn

    async def _take(self, payer: Payer) -> Turn[DecoderProcess]:
        self._refuse_if_closing()
        try:
            async with asyncio.timeout(self._queue_seconds):
                while not (turn := await self._turns.take(payer)).decoder.alive:
                    self._drop(turn)
                return turn
        except TimeoutError:
            raise ServerBusy(
                f"No decoder became free in {self._queue_seconds:g} seconds. This server has {self._size}. "
                "Send the same upload again later.",
                retry_after=round(self._clock_seconds) or 1,
            ) from None

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise ServerBusy("The server is shutting down. Send the same upload again later.")

    def _drop(self, turn: Turn[DecoderProcess]) -> None:
        """End the turn of a decoder that has died."""
        self._turns.end(turn, 0)
        self._give_back(turn.decoder, reusable=False)

    def _show_life(self) -> None:
        """Wake the pings that wait."""
        self._sign_of_life.set()
        self._sign_of_life.clear()

    def _give_back(self, process: DecoderProcess, *, reusable: bool) -> None:
        if reusable and not process.worn_out:
            self._turns.put(process)
            if process.jobs == _JOBS_PER_PROCESS:
                process.has_successor = True
                self._in_background(partial(self._relieve, process))
            return
        process.kill()
        self._in_background(partial(self._end if process.has_successor else self._replace, process))

    def _in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(_logged(work))
        self._replacements.add(task)
        task.add_done_callback(self._replacements.discard)

    async def _relieve(self, process: DecoderProcess) -> None:
        """Start a successor. The process ends after its next file."""
        await self._add_for_certain()
        process.worn_out = True

    async def _replace(self, process: DecoderProcess) -> None:
        try:
            await self._end(process)
        finally:
            await self._add_for_certain()

    async def _end(self, process: DecoderProcess) -> None:
        await process.close()
        self._all.discard(process)

    async def _add_for_certain(self) -> None:
        """Start a decoder. Try again after any error: otherwise the pool would stay smaller until the next restart."""
        while not self._closing:
            try:
                await self._add()
                return
            except Exception:
                log.exception("a decoder failed to start; the next attempt is in %g seconds", _RESTART_PAUSE)
                await asyncio.sleep(_RESTART_PAUSE)

    async def _add(self) -> None:
        process = await DecoderProcess.start(self._setup, _START_SECONDS)
        self._all.add(process)
        self._turns.put(process)
        self._show_life()


async def _twice(work: Callable[[], Awaitable[T]]) -> T:
    """Do the work, and again if its decoder ends: the first one may have ended by chance."""
    with contextlib.suppress(DecoderLost):
        return await work()
    return await work()


async def _logged(work: Callable[[], Awaitable[None]]) -> None:
    """Do the work, and log its errors: it has no caller."""
    try:
        await work()
    except Exception:
        log.exception("a decoder could not be ended")


def _head(path: str) -> tuple[bytes, int]:
    """Return a file's first bytes, and its size. The file is in memory, since it was just written: no thread."""
    try:
        with Path(path).open("rb") as file:
            return file.read(SCAN_BYTES), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise StorageUnavailable(
            "The received file cannot be read. Send the upload again.", detail=str(error)
        ) from error
