"""The checksum that a client sends along."""

import base64
import hashlib

import pytest

from uponce.core.checksum import ALGORITHMS, Checksum
from uponce.core.errors import ChecksumMismatch


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_is_that_of_the_bytes_that_arrived(algorithm: str) -> None:
    checksum = Checksum(algorithm, hashlib.new(algorithm, b"hello world").digest())
    found = checksum.begin()
    found.update(b"hello ")
    with pytest.raises(ChecksumMismatch):
        checksum.check(found)
    found.update(b"world")
    checksum.check(found)


def test_the_example_of_the_tus_protocol() -> None:
    checksum = Checksum("sha1", base64.b64decode("Kq5sNclPz7QV2+lfQIuc6R7oRu0="))
    found = checksum.begin()
    found.update(b"hello world")
    checksum.check(found)


def test_a_mismatch_names_both_and_the_cure() -> None:
    checksum = Checksum("md5", b"\x00" * 16)
    with pytest.raises(ChecksumMismatch) as caught:
        checksum.check(checksum.begin())
    assert str(caught.value) == (
        "The bytes that arrived have md5 d41d8cd98f00b204e9800998ecf8427e, but Upload-Checksum is "
        f"{'00' * 16}. None of them was stored; send them again."
    )
