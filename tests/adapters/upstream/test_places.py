"""The relay's HTTP client passes on a bounded number of requests, and one account takes no place of another one."""

import asyncio
from dataclasses import replace

import pytest

from tests.adapters.upstream.calling import CALL, Signer, complete, pieces, run
from tests.upstreams import StubUpstream, Trouble
from uponce.adapters.upstream.client import HttpUpstream
from uponce.app.ports.relaying import AdminCall
from uponce.core.errors import UpstreamUnavailable


def test_uploads_are_bounded_and_the_next_one_is_refused_at_once_with_the_setting() -> None:
    async def play(stub: StubUpstream, _: HttpUpstream) -> None:
        client = HttpUpstream(connections=2)
        signer = Signer(stub.upstream)
        signer.go.clear()
        running = [asyncio.create_task(client.upload(stub.upstream, CALL, pieces(), signer)) for _ in range(2)]
        while signer.calls < 2:
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            with pytest.raises(UpstreamUnavailable, match=r"2 uploads .* UPONCE_RELAY_CONNECTIONS allows 2 "):
                await client.upload(stub.upstream, complete(stub.upstream), pieces(), None)
        assert (await client.get(stub.upstream, "ping")).status == 200  # slow uploads hold up no other call
        later = replace(complete(stub.upstream), span="bytes 4096-8191/8192", upload_id="one")
        assert (await client.upload(stub.upstream, later, pieces(), None)).status == 200
        signer.go.set()
        assert {(await each).status for each in running} == {200}
        assert (await client.upload(stub.upstream, complete(stub.upstream), pieces(), None)).status == 200
        await client.close()

    run(play)


def test_other_calls_are_bounded_too() -> None:
    async def play(stub: StubUpstream, _: HttpUpstream) -> None:
        client = HttpUpstream(connections=1)
        stub.reads = iter([Trouble.HANGS])
        first = asyncio.create_task(client.get(stub.upstream, "ping"))
        while not stub.requests:
            await asyncio.sleep(0.001)
        asked = AdminCall("DELETE", (), "", b"")
        for attempt in (
            client.get(stub.upstream, "ping"),
            client.call(stub.upstream, "resources/image/upload", asked),
            client.post(stub.upstream, "image/destroy", {"public_id": "a"}),
        ):
            with pytest.raises(UpstreamUnavailable, match="UPONCE_RELAY_CONNECTIONS"):
                await attempt
        assert (await client.upload(stub.upstream, complete(stub.upstream), pieces(), None)).status == 200
        first.cancel()
        await asyncio.wait([first])
        await client.close()

    run(play)


def test_an_account_that_hangs_takes_no_place_of_another_account() -> None:
    async def play(stub: StubUpstream, _: HttpUpstream) -> None:
        client = HttpUpstream(connections=1)
        stub.uploads, stub.reads = iter([Trouble.HANGS]), iter([Trouble.HANGS])
        running = [
            asyncio.create_task(client.upload(stub.upstream, complete(stub.upstream), pieces(), None)),
            asyncio.create_task(client.get(stub.upstream, "ping")),
        ]
        while len(stub.requests) < 2:
            await asyncio.sleep(0.001)
        async with StubUpstream() as other:
            assert (await client.upload(other.upstream, complete(other.upstream), pieces(), None)).status == 200
            assert (await client.get(other.upstream, "ping")).status == 200
            with pytest.raises(UpstreamUnavailable, match="UPONCE_RELAY_CONNECTIONS"):
                await client.get(replace(stub.upstream, api_key="another key of the account"), "ping")
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            assert (await client.get(stub.upstream, "ping")).status == 200
            await client.close()

    run(play)
