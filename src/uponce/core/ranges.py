"""Byte ranges of a GET (RFC 9110 §14)."""

import re
from itertools import pairwise

from uponce.core.errors import RangeNotSatisfiable
from uponce.core.spans import Span

MAX_RANGES = 5

_SPEC = re.compile(r"([0-9]{0,20})-([0-9]{0,20})", re.ASCII)


def parse_ranges(header: str | None, size: int) -> tuple[Span, ...]:
    """Return the ranges to send. Return no range if the whole file is to be sent.

    A malformed header, another unit, more than MAX_RANGES ranges and overlapping ranges count as no header, as the RFC
    allows. Raise RangeNotSatisfiable if the header is well formed and no range is inside the file.
    """
    unit, _, range_set = (header or "").partition("=")
    if unit.lower() != "bytes":
        return ()
    specs = [spec.strip() for spec in range_set.split(",", MAX_RANGES)]
    matches = [_SPEC.fullmatch(spec) for spec in specs]
    if len(specs) > MAX_RANGES or not all(match and match.group() != "-" for match in matches):
        return ()
    resolved = [_resolve(match[1], match[2], size) for match in matches if match]
    if None in resolved and not _is_well_formed(matches):
        return ()
    ranges = tuple(found for found in resolved if found is not None)
    if not ranges:
        raise RangeNotSatisfiable(f"No requested range is inside the file of {size} bytes.")
    return () if _overlap(ranges) else ranges


def _is_well_formed(matches: list[re.Match[str] | None]) -> bool:
    return not any(m and m[1] and m[2] and int(m[1]) > int(m[2]) for m in matches)


def _resolve(first: str, last: str, size: int) -> Span | None:
    if first == "":
        length = min(int(last), size)
        return Span(size - length, size) if length else None
    start = int(first)
    end = min(int(last) + 1, size) if last else size
    return Span(start, end) if start < end else None


def _overlap(ranges: tuple[Span, ...]) -> bool:
    return any(a.end > b.start for a, b in pairwise(sorted(ranges)))
