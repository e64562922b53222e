"""A client that sends requests one after the other on one connection: for uploads that need more than one."""

import os
import socket
from collections.abc import Mapping
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple

from proof.bench.servers import BenchmarkError, Server


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """The file goes out by sendfile, so that the client costs little."""

    def __init__(self, server: Server, file: Path) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = os.open(file, os.O_RDONLY)

    def close(self) -> None:
        self._socket.close()
        os.close(self._file)

    def send(self, start: int = 0, end: int = 0, head: bytes = b"") -> None:
        """Send the head and the bytes of the file from `start` up to `end`. The request may go on."""
        self._socket.sendall(head)
        while start < end:
            start += os.sendfile(self._socket.fileno(), self._file, start, end - start)

    def ask(self, head: bytes, start: int = 0, end: int = 0, tail: str = "") -> Answer:
        """Send the head, the bytes of the file from `start` up to `end`, and the tail. Any refusal is an error."""
        self.send(start, end, head)
        self._socket.sendall(tail.encode())
        response = HTTPResponse(self._socket)
        response.begin()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        if answer.status >= 300:
            raise BenchmarkError(f"An upload was refused: {answer.status} {answer.body[:500]!r}")
        return answer
