"""A warm decoder process: reads a Job per line from standard input, writes a DecoderAnswer per line to standard output.

`process.py` starts it as `python -m uponce.adapters.media.worker SETUP PARENT`. It loads all it needs, gives up every
right that it does not need, and then waits. It ends when its input ends, when its parent ends, or when a file uses too
much CPU time. SIGPROF then ends it during a library's work, where Python code could not.
"""

import contextlib
import errno
import io
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

import msgspec

from uponce.adapters.media.images import block_other_loaders, inspect_image
from uponce.adapters.media.messages import DecoderAnswer, Job, Setup
from uponce.adapters.media.sandbox import confine, die_first, limit_resources
from uponce.adapters.media.screens import screen
from uponce.adapters.media.videos import inspect_video
from uponce.adapters.system import die_with
from uponce.core.errors import FileRefused, InvalidMedia, MediaTooLarge, StorageUnavailable
from uponce.core.formats import FORMATS, Format
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_INSPECTORS = {ResourceType.IMAGE: inspect_image, ResourceType.VIDEO: inspect_video}


def main() -> None:
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    die_with(int(sys.argv[2]), signal.SIGKILL)
    block_other_loaders()
    _warm_up(setup.limits)
    jobs, answers = _take_pipes()
    die_first()
    limit_resources(setup.memory_bytes)
    _say(answers, DecoderAnswer(sandboxed=confine(setup.roots)))
    for line in jobs:
        _say(answers, _timed(msgspec.json.decode(line, type=Job), setup))


def _warm_up(limits: Limits) -> None:
    """Load now what the libraries load on first use: later no file can be opened."""
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        for format_ in FORMATS.values():
            with contextlib.suppress(InvalidMedia):
                _inspect(nothing, format_, limits)


def _take_pipes() -> tuple[BinaryIO, IO[bytes]]:
    """Return the two pipes, under numbers that no library prints to or reads from. Close all other files.

    uvloop lets a process inherit files: the listening socket, and in a worker the pipe of its supervisor.
    """
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    kept = (0, 1, 2, jobs.fileno(), answers.fileno())
    for inherited in {int(path.name) for path in Path("/dev/fd").iterdir()}.difference(kept):
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
            os.close(inherited)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nothing, standard)
    os.close(nothing)
    return jobs, answers


def _say(answers: IO[bytes], answer: DecoderAnswer) -> None:
    answers.write(msgspec.json.encode(answer) + b"\n")
    answers.flush()


def _timed(job: Job, setup: Setup) -> DecoderAnswer:
    begun = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, setup.cpu_seconds)
    answer = _answer(job, setup)
    signal.setitimer(signal.ITIMER_PROF, 0)
    return replace(answer, seconds=time.process_time() - begun)


def _answer(job: Job, setup: Setup) -> DecoderAnswer:
    if job.format is None:
        return DecoderAnswer()
    try:
        with _Source(job.path) as source, io.BufferedReader(source) as file:
            answer = _judged(file, FORMATS[job.format], setup)
            if source.failure is not None:  # the disk is the reason, whatever a library made of it
                raise source.failure
            return answer
    except OSError as error:
        message = "The received file cannot be read. Send the upload again."
        return DecoderAnswer(code=StorageUnavailable.code, message=message, detail=str(error))


class _Source(io.FileIO):
    """A file that remembers a read that the disk failed. Reads by descriptor or by mmap do not come here."""

    failure: OSError | None = None

    def readinto(self, buffer: "WriteableBuffer") -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the disk was not asked: a field of the file named a place out of bounds
                self.failure = error
            raise


def _judged(file: BinaryIO, format_: Format, setup: Setup) -> DecoderAnswer:
    try:
        return DecoderAnswer(facts=_inspect(file, format_, setup.limits))
    except MemoryError as error:
        message = f"Reading this {format_.kind} needs more than {setup.memory_bytes} bytes of memory, the limit."
        return DecoderAnswer(code=MediaTooLarge.code, message=message, detail=repr(error)[:500])
    except FileRefused as error:
        return DecoderAnswer(code=error.code, message=error.message, detail=error.detail)


def _inspect(file: BinaryIO, format_: Format, limits: Limits) -> MediaFacts:
    try:
        screen(file, format_.name, limits)
        return _INSPECTORS[format_.kind](file, format_, limits)
    except (FileRefused, MemoryError):
        raise
    except Exception as error:  # a library may fail in any way: the file is the reason
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError(str(error)) from error
        raise InvalidMedia(
            f"Invalid {format_.kind} file. It begins like {format_.name.upper()}, but its header cannot be read.",
            detail=f"{type(error).__name__}: {error}"[:500],
        ) from error


if __name__ == "__main__":
    main()
