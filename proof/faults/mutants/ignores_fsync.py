"""`failing_upload` that does not look at what fsync says: a 200 may stand for bytes that never reached the disk."""

import os
import sys
from contextlib import suppress

from proof.faults import failing_upload

_fsync = os.fsync


def fsync(descriptor: int) -> None:
    with suppress(OSError):
        _fsync(descriptor)


os.fsync = fsync  # type: ignore[assignment]

if __name__ == "__main__":
    failing_upload.main(*sys.argv[1:])
