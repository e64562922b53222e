"""The ID3 tags before a sound. FFmpeg makes a structure of each of their frames, and the facts need none of them.

Source: https://id3.org/id3v2.4.0-structure, 3.1 (version, size) and 3.4 (footer).
"""

from typing import BinaryIO

from uponce.adapters.media.overlay import overlaid
from uponce.core.errors import MediaTooLarge

_HEAD = 10
_MAX_TAGS = 100
_OTHER_VERSION = b"\x7f"  # FFmpeg skips a tag whose version it does not know


def tag_bytes(head: bytes) -> int:
    """Return how many bytes the tag takes that begins here, or 0 if none does."""
    if not head.startswith(b"ID3") or len(head) < _HEAD:
        return 0
    size = sum((byte & 0x7F) << 7 * (3 - at) for at, byte in enumerate(head[6:_HEAD]))
    return _HEAD + size + (head[5] & 0x10 and 10)


def hide_tags(file: BinaryIO) -> BinaryIO:
    """Return the file with tags that FFmpeg skips. Raise MediaTooLarge for more tags than FFmpeg may get."""
    hidden: dict[int, bytes] = {}
    at = 0
    file.seek(at)
    while length := tag_bytes(file.read(_HEAD)):
        if len(hidden) == _MAX_TAGS:
            raise MediaTooLarge(f"Maximum number of ID3 tags is {_MAX_TAGS}. This file has more. Send fewer.")
        hidden[at + 3] = _OTHER_VERSION
        at += length
        file.seek(at)
    return overlaid(file, hidden)
