"""`failing_arrival` that ignores what fdatasync says: a 200 may stand for bytes that no pack has on the disk."""

import os
import sys
from contextlib import suppress

from proof.faults import failing_arrival, failing_upload

_fdatasync = os.fdatasync


def fdatasync(descriptor: int) -> None:
    with suppress(OSError):
        _fdatasync(descriptor)


os.fdatasync = fdatasync  # type: ignore[assignment]

if __name__ == "__main__":
    assert failing_arrival.failing_upload is failing_upload  # type: ignore[attr-defined]
    failing_upload.main(*sys.argv[1:])
