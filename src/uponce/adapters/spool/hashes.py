"""The hashes of bytes that arrive in order."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from uponce.core.values import Digest

new_md5 = partial(hashlib.md5, usedforsecurity=False)


@dataclass(slots=True)
class Hashes:
    """MD5 and SHA-256 of the first `end` bytes. Two threads may feed the two at the same time."""

    end: int = 0
    md5: Any = field(default_factory=new_md5)
    sha256: Any = field(default_factory=hashlib.sha256)

    def copy(self) -> "Hashes":
        return Hashes(self.end, self.md5.copy(), self.sha256.copy())

    def digest(self) -> Digest:
        return Digest(self.end, self.md5.hexdigest(), self.sha256.hexdigest())


def sha256_of(blocks: Iterable[bytes]) -> str:
    hash_ = hashlib.sha256()
    for block in blocks:
        hash_.update(block)
    return hash_.hexdigest()


def digest_of(blocks: Iterable[bytes | bytearray]) -> Digest:
    hashes = Hashes()
    for block in blocks:
        hashes.md5.update(block)
        hashes.sha256.update(block)
        hashes.end += len(block)
    return hashes.digest()
