"""Look-ups of names: those that get no answer delay no other one."""

import asyncio
import socket
import threading
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
import uvloop

from tests.receiver import receiving
from tests.upstreams import StubUpstream
from uponce.adapters.notifier import Notifier
from uponce.adapters.upstream.client import HttpUpstream


def test_names_without_an_answer_delay_no_other_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of a notification nor of a relay, on the event loop of `uponce serve`. Closing waits for none."""
    answered, system = threading.Event(), socket.getaddrinfo

    def look_up(host: Any, *args: Any, **options: Any) -> Any:
        if str(host).endswith("dead.example"):
            answered.wait(120)
        return system("127.0.0.1" if str(host).endswith(".example") else host, *args, **options)

    async def play(hook: str) -> None:
        notifier, client = Notifier([ip_network("127.0.0.1")], seconds=300), HttpUpstream()
        dead = [asyncio.ensure_future(notifier.post(f"http://{n}.dead.example/", {}, b"")) for n in range(12)]
        await asyncio.sleep(0.1)
        async with StubUpstream() as stub, asyncio.timeout(60):
            account = replace(stub.upstream, prefix=stub.upstream.prefix.replace("127.0.0.1", "account.example"))
            assert await notifier.post(hook.replace("127.0.0.1", "receiver.example"), {}, b"{}") == ""
            assert (await client.get(account, "ping")).status == 200
            assert not any(each.done() for each in dead)
            for each in dead:
                each.cancel()
            await asyncio.gather(*dead, return_exceptions=True)
            await notifier.close()
            await client.close()

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        with receiving() as receiver:
            uvloop.run(play(receiver.url))
    finally:
        answered.set()


def test_a_name_that_does_not_exist_is_named_in_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(*_: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def play() -> str:
        notifier = Notifier()
        try:
            return await notifier.post("http://no.such.invalid/", {}, b"")
        finally:
            await notifier.close()

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert "no.such.invalid port 80 cannot be reached" in uvloop.run(play())
