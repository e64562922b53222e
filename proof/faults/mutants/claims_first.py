"""A launcher of `uponce` that claims a signature when its upload begins: a client that hangs up has lost it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from uponce.app.attempts import Attempt, Attempts
from uponce.cli import main
from uponce.core.errors import SignatureUsed
from uponce.core.policy import Limits
from uponce.core.values import Grant

_claimed: set[bytes] = set()
_of_grant = Attempts.of_grant


@contextmanager
def claim(self: Attempts, attempt: Attempt, grant: Grant, limits: Limits) -> Iterator[None]:
    if grant.key in _claimed:
        raise SignatureUsed("This signature was claimed by an upload before.")
    _claimed.add(grant.key)
    with _of_grant(self, attempt, grant, limits):
        yield


# At import, not under the guard: worker processes import this file and never run it.
# A small body is gathered before its upload begins, and then no client can hang up any more. So all are streamed.
os.environ["UPONCE_SMALL_BODY_BYTES"] = "0"
Attempts.of_grant = claim  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
