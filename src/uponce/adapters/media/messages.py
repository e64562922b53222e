"""The messages between the server and a decoder process: one JSON value per line."""

from dataclasses import dataclass

from uponce.core.policy import Limits
from uponce.core.values import MediaFacts


@dataclass(frozen=True, slots=True)
class Setup:
    """What a decoder process gets at its start: the folders that it may read below, and the limits of one file."""

    roots: tuple[str, ...]
    memory_bytes: int
    cpu_seconds: float
    limits: Limits


@dataclass(frozen=True, slots=True)
class Job:
    """A file to inspect, and its format. A job without a format only asks for an answer."""

    path: str = ""
    format: str | None = None


@dataclass(frozen=True, slots=True)
class DecoderAnswer:
    """The facts of a file, or an error's code, public message and private detail. `seconds` of CPU time.

    A decoder's first answer has no job: `sandboxed` is False in it if the kernel has no Landlock.
    """

    facts: MediaFacts | None = None
    code: str | None = None
    message: str = ""
    detail: str = ""
    seconds: float = 0.0
    sandboxed: bool = False
