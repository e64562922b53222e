"""The checksum that a client sends along with a part of a file, so that the part is refused if it was altered."""

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
        """What the bytes go through."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def check(self, found: Hash) -> None:
        if not hmac.compare_digest(found.digest(), self.digest):
            raise ChecksumMismatch(
                f"The bytes that arrived have {self.algorithm} {found.digest().hex()}, but Upload-Checksum is "
                f"{self.digest.hex()}. None of them was stored; send them again."
            )
