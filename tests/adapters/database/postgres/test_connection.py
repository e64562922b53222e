"""How long a new connection waits, whatever is between uponce and PostgreSQL."""

import gc
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.postgres import shared
from uponce.adapters.database.postgres.connection import Connection, DatabaseAddress, connect, connected
from uponce.core.errors import SettingRefused

_IS_REQUEST_FOR_ENCRYPTION = (80877103, 80877104)
_STATUS = {
    b"server_version": b"15.4",
    b"client_encoding": b"UTF8",
    b"in_hot_standby": b"off",
    b"default_transaction_read_only": b"off",
}


@pytest.fixture
def silent() -> Iterator[DatabaseAddress]:
    """Yield the address of a server that authenticates, and then answers nothing."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

        def serve() -> None:
            while True:
                try:
                    client = stack.enter_context(listener.accept()[0])
                except OSError:
                    return
                client.settimeout(60)
                with suppress(OSError, struct.error):  # it may have given up
                    _authenticate(client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield DatabaseAddress(f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/d", 1)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _authenticate(client: socket.socket) -> None:
    while _first_number(client) in _IS_REQUEST_FOR_ENCRYPTION:
        client.sendall(b"N")
    status = b"".join(_message(b"S", name + b"\0" + value + b"\0") for name, value in _STATUS.items())
    client.sendall(_message(b"R", struct.pack("!I", 0)) + status + _message(b"K", bytes(8)) + _message(b"Z", b"I"))


def _first_number(client: socket.socket) -> int:
    (size,) = struct.unpack("!I", client.recv(4))
    number: int = struct.unpack("!I", client.recv(size - 4)[:4])[0]
    return number


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


def test_a_server_that_is_silent_after_the_log_in_is_given_up(silent: DatabaseAddress) -> None:
    with pytest.raises(psycopg.OperationalError):
        connect(silent)
    with pytest.raises(SettingRefused, match="cannot be used"), connected(silent):
        pass


def test_a_wait_that_was_given_up_does_not_go_on(silent: DatabaseAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    """psycopg would ask the server once more, whenever the garbage collector comes: a traceback in a server's log."""
    left, complaints = list[Any](), list[Any]()
    gc.collect()  # not what earlier tests left
    monkeypatch.setattr(sys, "unraisablehook", lambda each: complaints.append(each.exc_value))
    connection = Connection.connect(**replace(silent, seconds=60).parameters, autocommit=True)

    def give_up(_: object, waiting: Any, *more: object) -> None:
        """As after the deadline, before the server is asked."""
        left.append(waiting)
        next(waiting)
        raise psycopg.OperationalError

    with pytest.raises(psycopg.OperationalError), connection.pipeline():
        connection.execute("SELECT 1")
        monkeypatch.setattr(psycopg.Connection, "wait", give_up)
    connection.pgconn.finish()
    left.clear()
    assert complaints == []


def test_the_system_watches_a_connection_that_waits_long(silent: DatabaseAddress) -> None:
    """The wait of a patient read ends if the machine of PostgreSQL is gone. A URL may say otherwise."""
    patient = replace(silent, seconds=60)
    assert _watched(patient) == (1, 60, 10)
    assert _watched(replace(patient, url=f"{silent.url}?keepalives_idle=7&keepalives_interval=3")) == (1, 7, 3)
    assert _watched(replace(patient, url=f"{silent.url}?keepalives=0"))[0] == 0


def _watched(address: DatabaseAddress) -> tuple[int, ...]:
    asked = (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    )
    with (
        psycopg.Connection.connect(**address.parameters) as connection,
        socket.socket(fileno=os.dup(connection.fileno())) as line,
    ):
        return tuple(line.getsockopt(*each) for each in asked)


def test_a_pooler_that_ignores_options_leaves_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PgBouncer with `ignore_startup_parameters = options`. Without that it refuses every option."""
    real = psycopg.Connection.connect

    def ignoring(*args: Any, options: str = "", **kwargs: Any) -> Any:
        assert not options
        return real.__func__(Connection, *args, **kwargs)  # type: ignore[attr-defined]

    monkeypatch.setattr(Connection, "connect", ignoring)
    address = DatabaseAddress(shared().url().partition("&options")[0], 50)
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    connection = connect(address)
    assert [connection.execute(f"SHOW {name}".encode()).fetchone() for name in limits] == [
        ("50s",),
        ("50s",),
        ("200s",),
    ]
    connection.close()
    with connected(address) as checked:
        assert checked.execute("SHOW lock_timeout").fetchone() == ("50s",)
