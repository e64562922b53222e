"""`failing_upload` that takes a write for complete, however little of it the kernel took."""

import os
import sys
from collections.abc import Sequence

from proof.faults import failing_upload
from uponce.adapters.spool import uploads


def write_once(descriptor: int, blocks: Sequence[bytes | bytearray | memoryview]) -> None:
    if blocks:
        os.writev(descriptor, blocks)


uploads.write_all = write_once  # type: ignore[attr-defined]

if __name__ == "__main__":
    failing_upload.main(*sys.argv[1:])
