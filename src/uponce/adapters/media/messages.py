"""What the server and a decoder process say to each other: one JSON value per line."""

from dataclasses import dataclass

from uponce.core.policy import Limits
from uponce.core.values import MediaFacts


@dataclass(frozen=True, slots=True)
class Setup:
    """What a decoder process is started with. `roots` are the directories it may read below."""

    roots: tuple[str, ...]
    memory_bytes: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Ready:
    """A decoder's first line. `sandboxed` is False where the kernel has no Landlock."""

    sandboxed: bool


@dataclass(frozen=True, slots=True)
class Job:
    """A file to look at, as what; without a format only a sign of life is asked for."""

    path: str = ""
    format: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Facts, or the code, public message and private detail of an error; neither to a sign of life."""

    facts: MediaFacts | None = None
    code: str | None = None
    message: str = ""
    detail: str = ""
