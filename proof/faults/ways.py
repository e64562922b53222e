"""Bad ways for requests to travel: broken off at a chosen place of one part, or over a network that breaks anywhere."""

import asyncio
import random
from collections.abc import Callable

from proof.faults.clients import LOST, Connection, Reply, connected
from proof.faults.proxy import Fault, Kind, Plan
from proof.faults.senders import Request, Way
from proof.faults.tally import Tally
from tests.server import Server

WHICH: dict[str, Callable[[bytes, bytes], bool]] = {
    "first": lambda whole, part: whole.startswith(part),
    "middle": lambda whole, part: not whole.startswith(part) and not whole.endswith(part),
    "last": lambda whole, part: whole.endswith(part),
}
"""Which part of a file this is."""

PLACES = (
    "in the request line",
    "in the headers",
    "before the body",
    "in the fields",
    "before the file",
    "in the file",
    "before the file's last byte",
    "in the last boundary",
    "before the last byte",
    "nothing missing",
)


def cuts(request: Request) -> dict[str, tuple[int, int]]:
    """Return the least and the greatest number of bytes to send, by the place where the request breaks off.

    Parts by tus have no fields and no boundary.
    """
    whole = request.whole
    line, body, end = whole.index(b"\r\n"), whole.index(b"\r\n\r\n") + 4, len(whole)
    file = len(request.head)
    file_end = file + len(request.file)
    limits = (
        (0, line),
        (line + 1, body - 1),
        (body, body),
        (body + 1, file - 1),
        (file, file),
        (file + 1, file_end - 2),
        (file_end - 1, file_end - 1),
        (file_end, end - 2),
        (end - 1, end - 1),
        (end, end),
    )
    return {place: (low, high) for place, (low, high) in zip(PLACES, limits, strict=True) if low <= high}


def broken_off(
    server: Server, usual: Way, data: bytes, which: str, place: str, chance: random.Random, tally: Tally
) -> Way:
    """Return a way in which the first, a middle or the last part of the file breaks off at a place, once."""
    due = True

    async def way(request: Request) -> Reply:
        nonlocal due
        if not (due and request.file and WHICH[which](data, request.file) and place in cuts(request)):
            return await usual(request)
        due = False
        low, high = cuts(request)[place]
        cut = chance.randint(low, high)
        tally.counts[f"parts broken off {place}"] += 1
        tally.counts[f"parts broken off, the {which}"] += 1
        tally.inside += place not in PLACES[:2]  # before the server knows what it is about
        async with connected(server) as connection:
            await connection.send(request.whole[:cut])
            await asyncio.sleep(chance.choice((0, 0, 0.002, 0.02)))
            await _end(connection, cut < len(request.whole), chance, tally)
        return Reply(LOST)

    return way


async def _end(connection: Connection, has_more: bool, chance: random.Random, tally: Tally) -> None:
    """FIN, RST, or a half-closed connection whose answer is still awaited."""
    how = chance.choice(("closed", "reset", "half-closed"))
    if how != "half-closed":
        connection.hang_up(reset=how == "reset")
        return
    connection.end()
    reply = await connection.reply()
    tally.expect(not (has_more and reply.verdict == "ok"), "torn parts that were accepted", reply)


def bad_network(chance: random.Random, largest: int) -> Plan:
    """Every second connection breaks, somewhere in a head or in so many bytes; many are slow."""
    kinds = (Kind.NONE,) * 4 + (Kind.CUT, Kind.RESET, Kind.SWALLOW, Kind.SWALLOW) + (Kind.SILENCE,)

    def plan(_: int) -> Fault:
        after = chance.choice((chance.randrange(900), chance.randrange(largest)))
        delay, rate = chance.choice((0, 0, 0.02, 0.2)), chance.choice((None, None, None, 500_000))
        return Fault(chance.choice(kinds), after, delay, rate)

    return plan
