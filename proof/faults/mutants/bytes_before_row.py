"""`one_step` whose deletion lets the bytes go first, and then the row."""

import sys

from proof.faults import one_step
from proof.faults.bytes_first import bytes_first
from uponce.app import signed_calls

signed_calls._delete = bytes_first

if __name__ == "__main__":
    one_step.main(*sys.argv[1:])
