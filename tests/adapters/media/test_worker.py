"""The answer of a decoder for a file that the disk cannot read."""

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
