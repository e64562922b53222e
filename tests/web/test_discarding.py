"""Bodies that no code will read: so many bytes leave the socket, no more, and no code receives any of them."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from uponce.web import discarding
from uponce.web.discarding import discard

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two ends of a TCP connection: one that sends, one that is read."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sender:
        receiver = listener.accept()[0]
        with receiver:
            yield sender, receiver


def ignored(size: int) -> None: ...


def play(work: Callable[[], Awaitable[None]]) -> None:
    async def within() -> None:
        await asyncio.wait_for(work(), 100)

    asyncio.run(within())


def test_exactly_so_many_bytes_go(pair: Pair) -> None:
    sender, receiver = pair
    sender.sendall(b"x" * 1000 + b"next")
    dropped: list[int] = []

    play(lambda: discard(receiver, 1000, 60, dropped.append))

    assert receiver.recv(100) == b"next"
    assert sum(dropped) == 1000


def test_they_are_handed_to_nobody(pair: Pair) -> None:
    sender, receiver = pair
    sender.sendall(b"x" * 1000)
    sender.shutdown(socket.SHUT_WR)

    play(lambda: discard(receiver, 10_000, 60, ignored))

    assert discarding._NOWHERE.count(b"x") == 0


def test_bytes_that_come_bit_by_bit(pair: Pair) -> None:
    sender, receiver = pair

    async def both() -> None:
        gone = asyncio.ensure_future(discard(receiver, 300, 60, ignored))
        for _ in range(3):
            await asyncio.sleep(0.02)
            assert not gone.done()
            sender.sendall(b"x" * 100)
        await gone

    play(both)


@pytest.mark.parametrize("reset", [False, True])
def test_a_sender_that_goes_ends_it(pair: Pair, reset: bool) -> None:
    sender, receiver = pair
    sender.sendall(b"x" * 100)
    if reset:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sender.close()

    play(lambda: discard(receiver, 1000, 60, ignored))


def test_a_silent_sender_is_waited_for_a_while(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        play(lambda: discard(pair[1], 1000, 0.05, ignored))


def test_nothing_to_come_is_not_waited_for(pair: Pair) -> None:
    play(lambda: discard(pair[1], 0, 60, ignored))
