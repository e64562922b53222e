"""A file in which FFmpeg reads some bytes as others: what it need not see is hidden, and nothing moves."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import BinaryIO, cast


def overlaid(file: BinaryIO, others: Mapping[int, bytes]) -> BinaryIO:
    """Return the file with these bytes at these places. They do not overlap."""
    return cast(BinaryIO, _Overlaid(file, others)) if others else file  # it can do what FFmpeg asks for


class _Overlaid:
    def __init__(self, file: BinaryIO, others: Mapping[int, bytes]) -> None:
        self._file = file
        self._others = sorted(others.items())
        self._places = [at for at, _ in self._others]
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        start = self._file.tell()
        data = bytearray(self._file.read(size))
        end = start + len(data)
        first = max(bisect_right(self._places, start) - 1, 0)  # the one before may reach into these bytes
        for at, others in self._others[first : bisect_right(self._places, end)]:
            for place, byte in enumerate(others, at):
                if start <= place < end:
                    data[place - start] = byte
        return bytes(data)
