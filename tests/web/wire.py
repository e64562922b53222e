"""Connections to the server inside this process, with our protocol and no socket."""

import asyncio
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from tests.world import PNG, World, assert_accepted
from uponce.web.protocol import HardenedProtocol

HIGH = 16 * 1024


class Reader(asyncio.Transport):
    """The end of a connection that takes all at once, or that takes nothing. It copies nothing before it is asked."""

    def __init__(self, *, stuck: bool = False) -> None:
        super().__init__()
        self.stuck = stuck
        self.ended = self.half_closed = self.paused = False
        self.protocol: Any = None
        self._blocks: list[Any] = []

    def write(self, data: Any) -> None:
        if self.half_closed:
            raise RuntimeError("Cannot call write() after write_eof()")
        self._blocks.append(data if self.stuck else bytes(data))
        if not self.paused and self.get_write_buffer_size() > HIGH:
            self.paused = True
            self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        for data in list_of_data:
            self.write(data)

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._blocks)) if self.stuck else 0

    def received(self) -> bytes:
        return b"".join(self._blocks)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.half_closed = True

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.7", 50000), "sockname": ("192.0.2.1", 80)}.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


class Wire:
    """Connections to the server inside this process; `long_way` leaves the express out. It counts the tasks."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.long_way = False
        self.tasks = 0
        monkeypatch.setattr("uponce.web.protocol.limit_unsent", lambda _: None)

    def say(
        self, *requests: bytes, reader: Reader | None = None, seconds: float = 60, before_a_stop: bytes | None = None
    ) -> bytes:
        """Send these bytes at once, and wait until every request is answered.

        With `before_a_stop` these bytes come first. When they are answered, the server begins to stop, before it reads
        the others. The connection then has to end.
        """
        work = self._say(b"".join(requests), reader or Reader(), before_a_stop)
        return asyncio.run(asyncio.wait_for(work, seconds))

    async def _say(self, data: bytes, reader: Reader, before_a_stop: bytes | None) -> bytes:
        state = ServerState()
        protocol = self.connect(reader, state)
        try:
            if before_a_stop is not None:
                await self._answered(protocol, before_a_stop, state)
                protocol.shutdown()
            if not reader.ended:
                await self._answered(protocol, data, state)
            while before_a_stop is not None and not reader.ended:
                await asyncio.sleep(0)
        finally:
            reader.ended = True
            protocol.connection_lost(None)
        return reader.received()

    def connect(self, reader: Reader, state: ServerState) -> HardenedProtocol:
        app: Any = self.world.app
        config = Config(app if not self.long_way else app.__call__, log_config=None, access_log=False)
        config.load()
        config.loaded_app = app if not self.long_way else app.__call__
        state.default_headers = [(b"date", b"Thu, 01 Jan 2026 00:00:00 GMT")]
        protocol = reader.protocol = HardenedProtocol(config, state, {})
        protocol.connection_made(reader)
        return protocol

    async def _answered(self, protocol: HardenedProtocol, data: bytes, state: ServerState) -> None:
        protocol.data_received(data)
        while protocol.is_answering() or protocol.pipeline:
            self.tasks += len(running := set(state.tasks))
            await (asyncio.wait(running) if running else asyncio.sleep(0))


def get(path: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/{version}", "Host: media.example", *lines, "", "")).encode()


def store(world: World, file: bytes = PNG, *, kind: str = "auto", filename: str = "cat.png", **params: object) -> str:
    answer = assert_accepted(world.upload(world.sign(params), file, kind=kind, filename=filename)).json
    return urlsplit(str(answer["url"])).path


def without_id(answer: bytes) -> bytes:
    found = re.findall(rb"x-request-id: [0-9a-f]{32}\r\n", answer)
    assert found
    return answer.replace(found[0], b"")
