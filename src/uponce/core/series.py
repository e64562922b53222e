"""A series: one upload that arrives in several requests. Its rules say where the parts must agree.

The parameters of the first request count for the whole series. Some SDKs sign each chunk again. The parameters of later
parts may then differ only in those of `_VARYING`, and may lack the public_id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from uponce.core.errors import ChunkConflict, ChunkInProgress, ChunkTooSmall, StaleRequest, TooManyParts
from uponce.core.parameters import UNSIGNED
from uponce.core.policy import MIB, Limits, refuse_size
from uponce.core.signature import duration, utc
from uponce.core.spans import Span, merged, split, total_size
from uponce.core.values import Algorithm, Grant, ResourceType

_VARYING = frozenset({"timestamp", "nonce"})


@dataclass(frozen=True, slots=True)
class Chunk:
    """One part: its byte range, and the total size of the file if the sender knows it."""

    span: Span
    total: int | None


def reply_key(series_id: str) -> str:
    """Return the key of the stored answer of a series. Its space keeps it apart from every Idempotency-Key."""
    return f"series {series_id}"


@dataclass(frozen=True, slots=True)
class StoredPart:
    """Recorded bytes of a shared series, and the one object in the store that holds exactly these bytes."""

    span: Span
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Series:
    """An unfinished upload. `upload_id` is its client's name for it, unique within cloud and API key.

    Without an `upload_id`, only `id` leads to the series; no client can guess it. `spans` are merged and durable.
    `grant` is one of the grants of its requests, and `signatures` is their number. The commit spends them all; only the
    database knows all. The bytes of a `shared` series are stored parts, which every server can read, and `parts` is
    their number. Otherwise they are in a file of one server. `arrived` counts bytes from their arrival on, before they
    are recorded. It counts repeated bytes again.
    """

    id: str
    cloud: str
    api_key: str
    grant: Grant
    upload_id: str | None
    requested: ResourceType | None
    parameters: tuple[tuple[str, str], ...]
    algorithm: Algorithm
    filename: str | None
    blob_key: str
    created_at: int
    total: int | None = None
    shared: bool = False
    arrived: int = 0
    spans: tuple[Span, ...] = ()
    signatures: int = 1
    parts: int = 0

    @property
    def received(self) -> int:
        return total_size(self.spans)

    @property
    def end(self) -> int:
        """Return the end of the last span that arrived."""
        return self.spans[-1].end if self.spans else 0

    @property
    def complete(self) -> bool:
        """Return whether the total is known and every byte is there."""
        return self.received == self.total


def freeze(params: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the collected parameters that count for the whole series, in order of names."""
    return tuple(sorted((name, value) for name, value in params.items() if name not in UNSIGNED))


def check_parameters(series: Series, params: Mapping[str, str], requested: ResourceType | None) -> None:
    """Raise ChunkConflict if a later part has other parameters than the first part."""
    if changed := changed_parameters(series, params, requested):
        raise ChunkConflict(
            f"Parameter {changed[0][:100]} differs from that of the upload's first chunk. Send all chunks of one file "
            "with the same parameters, and another file with another X-Unique-Upload-Id."
        )


def changed_parameters(series: Series, params: Mapping[str, str], requested: ResourceType | None) -> list[str]:
    """Return the names of the parameters in which a later part differs from the first part."""
    first, later = _lasting(dict(series.parameters)), _lasting(dict(freeze(params)))
    if "public_id" not in later:  # SDKs take that of the interim answer for the next chunk: uponce gives none
        first.pop("public_id", None)
    changed = sorted(name for name in first.keys() | later.keys() if first.get(name) != later.get(name))
    if requested != series.requested:
        changed.append("resource_type")
    return changed


def check_chunk(series: Series, chunk: Chunk) -> None:
    """Raise ChunkConflict if the part gives another total than the series, or if a byte is beyond the total."""
    total = series.total if chunk.total is None else chunk.total
    if series.total is not None and series.total != total:
        raise ChunkConflict(
            f"This chunk gives the file {total} bytes, but an earlier chunk gave {series.total}. "
            "Send the same total in every chunk."
        )
    end = max(series.end, chunk.span.end)
    if total is not None and end > total:
        raise ChunkConflict(
            f"The file has {total} bytes, but its chunks reach to byte {end}. Send the size of the whole file."
        )


def check_parts_left(series: Series, limits: Limits) -> None:
    """Raise TooManyParts if the series lacks bytes and may have no further stored part."""
    if series.parts >= limits.parts_per_series and not series.complete:
        raise TooManyParts(
            f"The bytes of this upload came in {series.parts} parts, and {limits.parts_per_series} are allowed. Cancel "
            "it, or sign again, and send the file in fewer and larger requests."
        )


def grown(series: Series, chunk: Chunk) -> Series:
    """Return the series with this part. Raise ChunkConflict as `check_chunk` does."""
    check_chunk(series, chunk)
    total = series.total if chunk.total is None else chunk.total
    spans = merged([*series.spans, chunk.span])
    return replace(series, total=total, spans=spans, arrived=max(series.arrived, total_size(spans)))


def check_parts(series: Series, span: Span, parts: Sequence[StoredPart]) -> None:
    """Raise ChunkInProgress unless the parts are exactly the bytes of the span that are not recorded yet."""
    missing = [gap for gap, present in split(span, series.spans) if not present]
    if [part.span for part in parts] != (missing if series.shared else []):
        raise ChunkInProgress("Another server has received bytes of this part of the file. Send the part again.")


def check_size(chunk: Chunk, limit: int, limits: Limits) -> None:
    """Raise FileTooLarge if the file must exceed the limit, ChunkTooSmall for a small part before the last."""
    refuse_size(max(chunk.span.end, chunk.total or 0), limit, is_whole=chunk.total is not None)
    if chunk.span.size < limits.min_chunk_bytes and chunk.span.end != chunk.total:
        raise ChunkTooSmall(_too_small(chunk.span.size, limits.min_chunk_bytes))


def _too_small(size: int, limit: int) -> str:
    """Return, for the default limit, exactly the text that the tests of the SDKs compare."""
    if limit == 5 * MIB:
        return "All parts except EOF-chunk must be larger than 5mb"
    return f"All parts except EOF-chunk must have at least {limit} bytes. This part has {size}. Send larger parts."


def expires_at(series: Series, limits: Limits) -> int:
    """Return when the series expires, in Unix seconds."""
    return series.created_at + limits.series_seconds


def is_slow(series: Series, now: float, limits: Limits) -> bool:
    """Return whether a new series may take the place of this one: its bytes arrived at less than the least rate.

    The rate counts over the whole life of the series. So a series that has many bytes may pause for a while and keep
    its place. A complete series is never slow.
    """
    seconds = max(now - series.created_at, limits.rate_seconds)
    return not series.complete and series.arrived < limits.least_rate * seconds


def check_alive(series: Series, now: float, limits: Limits) -> None:
    """Raise StaleRequest if the series has expired."""
    if now > expires_at(series, limits):
        raise StaleRequest(
            f"Stale request - this upload was begun at {utc(series.created_at)} which is more than "
            f"{duration(limits.series_seconds)} ago. Ask for a new signature and begin again."
        )


def _lasting(params: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in params.items() if name not in _VARYING}
