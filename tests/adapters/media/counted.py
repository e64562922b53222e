"""The facts of a film or sound, and how many bytes were read for them."""

import io

from uponce.adapters.media.videos import inspect_video
from uponce.core.formats import FORMATS
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts


class _Counted(io.BytesIO):
    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def facts_of(data: bytes, name: str) -> tuple[MediaFacts, int]:
    """`name` is that of the format."""
    file = _Counted(data)
    return inspect_video(file, FORMATS[name], Limits()), file.count
