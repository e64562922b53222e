"""What the use cases need from the outside world.

Ports speak domain values. "Not found" is None where it is ordinary. No HTTP type and no driver's exception
crosses a port: what goes wrong arrives as an error of core/errors.py.
"""

from typing import Protocol

from uponce.app.ports.blobs import (
    Assembly,
    BlobStore,
    FrontServer,
    OpenBlob,
    Piece,
    Pieces,
    Presigner,
    SharedPieces,
    Stage,
    StoredBlob,
)
from uponce.app.ports.database import Committed, Database, Draft, Page, Reply, Rule
from uponce.app.ports.metrics import Metrics, NoMetrics
from uponce.app.ports.moving import MovableDatabase, Row, Table
from uponce.core.values import MediaFacts, ResourceType

__all__ = [
    "Assembly",
    "BlobStore",
    "Clock",
    "Committed",
    "Database",
    "Draft",
    "FrontServer",
    "Ids",
    "Inspector",
    "Metrics",
    "MovableDatabase",
    "NoMetrics",
    "OpenBlob",
    "Page",
    "Piece",
    "Pieces",
    "Presigner",
    "Reply",
    "Row",
    "Rule",
    "SharedPieces",
    "Stage",
    "StoredBlob",
    "Table",
]


class Clock(Protocol):
    def now(self) -> float:
        """Unix seconds."""


class Ids(Protocol):
    def hex(self, length: int) -> str:
        """`length` random hex digits."""

    def base36(self, length: int) -> str:
        """`length` random characters of `[a-z0-9]`."""

    def dated_hex(self) -> str:
        """32 hex digits that begin with the time, so that an index of them grows at one end; 74 bits are random."""


class Inspector(Protocol):
    async def inspect(self, path: str, requested: ResourceType | None) -> MediaFacts:
        """What the file at `path` is, decided by its bytes alone.

        `requested` is what it was uploaded as; None is `auto`: image or video where a decoder exists for the
        format, raw otherwise. `raw` takes anything. InvalidMedia when the bytes are not what was requested, or a
        decoder failed, crashed or timed out; MediaTooLarge when the header already promises too much;
        ServerBusy when no decoder becomes free in time.
        """

    async def ping(self) -> None:
        """Return when the decoders answer."""
