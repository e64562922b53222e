"""The checksum that a client sends with a part of a file. uponce refuses the part if the bytes differ."""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Protocol

from uponce.core.errors import ChecksumMismatch

ALGORITHMS = ("sha1", "sha256", "sha512", "md5")


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Checksum:
    """`algorithm` is one of ALGORITHMS."""

    algorithm: str
    digest: bytes

    def begin(self) -> Hash:
        """Return a new hash. The caller feeds it the bytes that arrive."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def check(self, found: Hash) -> None:
        """Raise ChecksumMismatch unless the bytes in the hash have this digest."""
        if not hmac.compare_digest(found.digest(), self.digest):
            raise ChecksumMismatch(
                f"The bytes that arrived have {self.algorithm} {found.digest().hex()}, but Upload-Checksum is "
                f"{self.digest.hex()}. None of them was stored; send them again."
            )
