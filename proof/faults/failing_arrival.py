"""`failing_upload` with its bytes in memory: it takes its steps as a group of one, and a small one goes into a pack."""

import sys

from proof.faults import failing_upload, one_arrival

failing_upload.send = one_arrival.send  # type: ignore[attr-defined]

if __name__ == "__main__":
    failing_upload.main(*sys.argv[1:])
