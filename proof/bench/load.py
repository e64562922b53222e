"""The load generator: one thread, some sockets, requests from a file.

`python -m proof.bench.load` reads a Job from standard input and prints an Outcome. A request is a head, a file and a
tail (see Job). Files go out by sendfile, so a request costs some five system calls here. Every figure says how much of
a core the generator used.
"""

import mmap
import os
import select
import socket
import sys
import time
from pathlib import Path

import msgspec

from proof.bench.job import Job, Outcome, Tally

_BLOCK = 1 << 20
# For a first answer; nothing can be said without one.
_PATIENCE_SECONDS = 60.0
# A whole small upload fits, so that sending it takes one call.
_SEND_BUFFER = 1 << 18
_READ, _BOTH = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT


class Connection:
    """One socket and the request that is on it. `due` is None without a request."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self.due: float | None = None
        self._open()

    def begin(self, head: bytes, due: float) -> None:
        self.due, self._head, self._sent, self._answer, self._left = due, head, 0, b"", -1
        self._send()

    def handle(self, event: int) -> None:
        if event & ~select.EPOLLOUT:
            self._receive()
        elif self.due is not None:
            self._send()

    def _open(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._load.job.port))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        # As browsers, curl and Node. Without it the tail may wait 40 ms for the receipt of the file.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._number = self._socket.fileno()
        self._load.connections[self._number] = self
        self._load.epoll.register(self._number, _READ)

    def _send(self) -> None:
        load = self._load
        try:
            while self._sent < load.size:
                sent = self._send_some(self._sent, len(self._head), len(self._head) + load.file_size)
                self._sent += sent
                load.tally.sent += sent
            load.epoll.modify(self._number, _READ)
        except BlockingIOError:
            load.epoll.modify(self._number, _BOTH)
        except OSError:  # the server has closed; its answer may still be there to read
            self._receive()

    def _send_some(self, at: int, file: int, tail: int) -> int:
        """From offset `at` of the request; its file begins at `file` and its tail at `tail`."""
        if at < file:
            return self._socket.send(self._head[at:], socket.MSG_MORE if self._load.size > file else 0)
        if at < tail:
            return os.sendfile(self._number, self._load.file, at - file, tail - at)
        return self._socket.send(self._load.tail[at - tail :])

    def _receive(self) -> None:
        load = self._load
        try:
            size = self._socket.recv_into(load.buffer)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        load.tally.received += size
        if not size:
            self._finish(None)
            return
        if self._left >= 0:
            self._left -= size
        else:
            self._answer += load.buffer[:size]
            head, found, body = self._answer.partition(b"\r\n\r\n")
            self._left = _content_length(head) - len(body) if found else -1
        if self._left == 0:
            self._finish(int(self._answer[9:12]))

    def _finish(self, status: int | None) -> None:
        """End the request. If it was cut short, the next one needs a new connection."""
        load, due, self.due = self._load, self.due, None
        if status is None or self._sent < load.size or b"\nconnection: close\r" in self._answer.lower():
            load.epoll.unregister(self._number)
            self._socket.close()
            self._open()
        if due is not None:
            load.tally.count(status, due, time.perf_counter())
            load.idle.append(self)


def _content_length(head: bytes) -> int:
    """Every server that is measured sends one; a chunked answer would be another workload."""
    _, found, rest = head.lower().partition(b"\ncontent-length:")
    if not found:
        raise ValueError(f"an answer without Content-Length: {head[:500]!r}")
    return int(rest.partition(b"\r")[0])


class Load:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.tally = Tally()
        self.file = os.open(job.file or os.devnull, os.O_RDONLY)
        self.file_size = Path(job.file).stat().st_size if job.file else 0
        self.tail = job.tail.encode()
        self.size = job.head_size + self.file_size + len(self.tail)
        self.buffer = memoryview(bytearray(_BLOCK))
        with Path(job.heads).open("rb") as heads:
            self._heads = mmap.mmap(heads.fileno(), 0, prot=mmap.PROT_READ)
        self._count = len(self._heads) // job.head_size
        self._next = 0
        self.epoll = select.epoll()
        self.connections: dict[int, Connection] = {}
        self.idle = [Connection(self) for _ in range(job.connections)]

    def run(self) -> Outcome:
        begun = now = time.perf_counter()
        end, latest = begun + self.job.seconds, begun + self.job.seconds + _PATIENCE_SECONDS
        while now < (end if self.tally.moments else latest) and not self._done:
            wait = self._begin(begun, now)
            for number, event in self.epoll.poll(min(wait, max(0.0, end - now) or _PATIENCE_SECONDS)):
                self.connections[number].handle(event)
            now = time.perf_counter()
        return self.tally.outcome(begun, now)

    @property
    def _done(self) -> bool:
        return self._ran_out and len(self.idle) == self.job.connections

    @property
    def _ran_out(self) -> bool:
        return self._next >= self._count and not self.job.cycle

    def _begin(self, begun: float, now: float) -> float:
        """Send what is due on the connections that are free; the seconds until more is due."""
        while self.idle and not self._ran_out:
            due = begun + self._next / self.job.rate if self.job.rate else now
            if due > now:
                return due - now
            at = self._next % self._count * self.job.head_size
            self._next += 1
            self.idle.pop().begin(self._heads[at : at + self.job.head_size], due)
        return self.job.seconds


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(Load(msgspec.json.decode(sys.stdin.buffer.read(), type=Job)).run()))
