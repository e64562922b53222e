"""How long a signature lives, and how long the ledger remembers it: timestamps, the window, the skew."""

import re
from datetime import UTC, datetime

from uponce.core.errors import FutureTimestamp, InvalidParameter, StaleRequest

# `int()` alone would accept signs, spaces, underscores and full-width digits.
_DIGITS = re.compile(r"0|[1-9][0-9]{0,12}", re.ASCII)
_MILLISECONDS_FROM = 10**12


def parse_timestamp(text: str) -> int:
    """Return Unix seconds. A number of 13 digits counts as milliseconds, which Directus sends."""
    if not _DIGITS.fullmatch(text):
        raise InvalidParameter(
            f"Invalid timestamp {text[:20]!r}. Send Unix seconds as plain digits, for example 1767225600."
        )
    number = int(text)
    return number // 1000 if number >= _MILLISECONDS_FROM else number


def check_fresh(
    timestamp: int, *, now: float, window: int, skew: int, watermark: int | None, valid_for: int | None = None
) -> None:
    """Raise unless timestamp − skew ≤ now ≤ timestamp + lifetime and the timestamp is after the watermark.

    The lifetime is the key's window, or the signed `valid_for` if that is shorter. All in seconds. The watermark is the
    newest timestamp whose ledger rows may be gone, by a purge or by a restore. At or before the watermark the ledger
    cannot know whether a signature was spent, so the signature is stale, whatever the window says now.
    """
    if timestamp > now + skew:
        raise FutureTimestamp(
            f"Timestamp is in the future - reported time is {utc(timestamp)}, but the server's time is {utc(now)}. The "
            f"limit is {skew} seconds. Correct the clock of the machine that signs."
        )
    lifetime = window if valid_for is None else min(window, valid_for)
    if now > timestamp + lifetime:
        raise StaleRequest(
            f"Stale request - reported time is {utc(timestamp)} which is more than {duration(lifetime)} ago"
        )
    check_watermark(timestamp, watermark)


def check_watermark(timestamp: int, watermark: int | None) -> None:
    """Raise StaleRequest if the timestamp is at or before the watermark: the ledger may have dropped its row."""
    if watermark is not None and timestamp <= watermark:
        raise StaleRequest(
            f"Stale request - reported time is {utc(timestamp)} which is not after {utc(watermark)}. "
            "The server refuses all signatures up to that time. Ask for a new signature."
        )


def keep_until(timestamp: int, *, window: int, skew: int, max_upload_seconds: int) -> int:
    """Return the last Unix second in which the ledger needs the row of a grant: no server accepts or commits it later.

    Counted from the signature's timestamp and the key's full window, never from the time of use. With a timestamp in
    the future skew, a signature lives longer than a row that is kept from its use on. uponce would accept it again.
    """
    return timestamp + window + skew + max_upload_seconds


def utc(timestamp: float) -> str:
    """Return `2024-04-11 13:23:38 +0000`, the form of Cloudinary's own messages."""
    try:
        return datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%d %H:%M:%S +0000")
    except (OverflowError, ValueError, OSError):
        return f"{int(timestamp)} seconds after 1970"


def duration(seconds: int) -> str:
    """Return `1 hour`, `2 minutes` or `90 seconds`."""
    for size, unit in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0 and seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} seconds"
