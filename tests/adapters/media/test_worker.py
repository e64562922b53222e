"""The answer of a decoder for a file that the disk cannot read."""

import os
import struct
from pathlib import Path

import pytest

from uponce.adapters.media.messages import Job, Setup
from uponce.adapters.media.worker import _answer
from uponce.adapters.system import LINUX
from uponce.core.policy import MIB, Limits

_EIO = "/proc/self/mem"  # opens, but no process has a page at its address 0


@pytest.mark.skipif(not LINUX, reason="only Linux has a file whose reads fail with EIO")
@pytest.mark.parametrize("format_", ["wav", "mp4", "svg"])
def test_a_read_error_of_the_disk_is_no_fault_of_the_file(format_: str) -> None:
    """A refusal of the file would end its series and delete all its bytes."""
    answer = _answer(Job(_EIO, format_), Setup((), 448 * MIB, 2, Limits()))
    assert (answer.code, answer.facts) == ("storage_unavailable", None)
    assert "Errno 5" in str(answer.detail)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="only there a file may be read so far behind its end")
def test_a_file_that_points_out_of_bounds_is_at_fault_itself() -> None:
    """A box of nearly 2^63 bytes. A read behind it fails with EINVAL, though the disk is whole."""
    path = Path(f"/dev/shm/uponce-test-{os.getpid()}.mp4")
    path.write_bytes(struct.pack(">I4s4s4x4sI4sQ", 20, b"ftyp", b"isom", b"isom", 1, b"free", 2**63 - 256) + bytes(32))
    try:
        assert _answer(Job(str(path), "mp4"), Setup((), 448 * MIB, 2, Limits())).code == "invalid_media"
    finally:
        path.unlink()
