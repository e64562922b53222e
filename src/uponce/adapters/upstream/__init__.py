"""The account to which a relay forwards uploads, over HTTP."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Times:
    """Time-outs in seconds.

    `connect`: until a connection is there. `stall`: sending without progress. `reply`: from the last byte of the
    request, or the first of the answer, to the end of the answer. `look`: a whole look-up. `idle`: how long an unused
    connection is kept.
    """

    connect: float = 5
    stall: float = 60
    reply: float = 300
    look: float = 15
    idle: float = 4
