"""What the relay's HTTP client knows when no answer came: nothing was done, or the outcome is unknown."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.adapters.upstream.calling import BYTES, CALL, KEY, Clock, Signer, certificate, complete, pieces, run, turns
from tests.upstreams import StubUpstream, Trouble
from uponce.adapters.upstream import Times
from uponce.adapters.upstream.client import HttpUpstream
from uponce.adapters.upstream.exchange import MOST_BYTES
from uponce.app.ports.relaying import AdminCall
from uponce.core.errors import OutcomeUnknown, SignatureUsed, UponceError, UpstreamUnavailable
from uponce.core.upstream import signed

# --- what is certain when no answer comes


BEFORE = [Trouble.RESET, Trouble.HANG_UP]
AFTER = [
    Trouble.AT_BOUNDARY,
    Trouble.FORGETS,
    Trouble.SILENT,
    Trouble.RESET_LATE,
    Trouble.SHORT,
    Trouble.HUGE,
    Trouble.ROTTEN_GZIP,
]


async def in_two_steps() -> AsyncIterator[bytes]:
    """A file whose second half comes when the upstream has broken off."""
    yield BYTES[:2048]
    await turns()
    yield BYTES[2048:]


@pytest.mark.parametrize("trouble", BEFORE)
def test_a_connection_that_breaks_before_the_signature_left_is_unavailable(trouble: Trouble) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = repeat(trouble)
        signer = Signer(stub.upstream)
        with pytest.raises(UpstreamUnavailable):
            await client.upload(stub.upstream, CALL, in_two_steps(), signer)
        assert (signer.calls, len(stub.requests)) == (0, 1)

    run(play)


@pytest.mark.parametrize("trouble", BEFORE)
def test_a_connection_that_breaks_while_it_is_signed_is_unavailable_and_sign_runs_to_its_end(trouble: Trouble) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = repeat(trouble)
        stub.reading.clear()
        signer = Signer(stub.upstream)
        signer.go.clear()
        upload = asyncio.create_task(client.upload(stub.upstream, CALL, pieces(), signer))
        await signer.begun.wait()
        stub.reading.set()
        await turns()
        assert not upload.done()
        signer.go.set()
        with pytest.raises(UpstreamUnavailable):
            await upload
        assert signer.ends == 1

    run(play)


@pytest.mark.parametrize("trouble", AFTER)
def test_without_an_answer_after_the_signature_left_the_outcome_is_unknown(trouble: Trouble) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = iter([trouble])
        with pytest.raises(OutcomeUnknown):
            await client.upload(stub.upstream, CALL, pieces(), Signer(stub.upstream))
        assert len(stub.requests) == 1  # it is not repeated
        assert (KEY in stub.store) == (trouble is not Trouble.FORGETS)

    run(play)


@pytest.mark.parametrize("trouble", [*BEFORE, *AFTER])
def test_with_complete_fields_a_request_that_has_begun_has_an_unknown_outcome(trouble: Trouble) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = iter([trouble])
        with pytest.raises(OutcomeUnknown):
            await client.upload(stub.upstream, complete(stub.upstream), pieces(), None)
        assert len(stub.requests) == 1

    run(play)


@pytest.mark.parametrize("method", ["DELETE", "PUT", "POST"])
@pytest.mark.parametrize("body", [b"", b"public_ids[]=a"])
def test_a_call_whose_answer_was_lost_on_a_kept_connection_is_not_sent_again(method: str, body: bytes) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        await client.get(stub.upstream, "ping")
        stub.uploads = iter([Trouble.SILENT])
        asked = AdminCall(method, (), "application/x-www-form-urlencoded", body)
        with pytest.raises(OutcomeUnknown):
            await client.call(stub.upstream, "resources/image/upload", asked)
        assert [request.method for request in stub.requests] == ["GET", method]
        assert stub.connections == 1

    run(play, Times(idle=300))


def test_without_a_connection_nothing_is_unknown() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        nowhere = replace(stub.upstream, prefix="http://127.0.0.1:9")
        signer = Signer(nowhere)
        for attempt in (
            client.upload(nowhere, CALL, pieces(), signer),
            client.upload(nowhere, complete(nowhere), pieces(), None),
            client.post(nowhere, "image/destroy", {"public_id": "a"}),
            client.get(nowhere, "ping"),
        ):
            with pytest.raises(UpstreamUnavailable) as raised:
                await attempt
            assert "127.0.0.1" in raised.value.for_operator
        assert signer.calls == 0

    run(play)


@pytest.mark.parametrize(
    "prefix", ["http://127.0.0.1:99999", "http://[::1", "http://a b", "http://k:s@127.0.0.1:9", "x"]
)
def test_a_prefix_that_is_no_address_is_unavailable(prefix: str) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        wrong = replace(stub.upstream, prefix=prefix)
        for attempt in (client.get(wrong, "ping"), client.upload(wrong, complete(wrong), pieces(), None)):
            with pytest.raises(UpstreamUnavailable):
                await attempt

    run(play)


@pytest.mark.parametrize("trouble", [Trouble.SILENT, Trouble.SHORT, Trouble.HUGE, Trouble.RESET_LATE])
def test_a_look_up_without_an_answer_is_unavailable_and_a_form_is_unknown(trouble: Trouble) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = stub.reads = repeat(trouble)
        with pytest.raises(UpstreamUnavailable):
            await client.get(stub.upstream, "ping")
        with pytest.raises(OutcomeUnknown):
            await client.post(stub.upstream, "image/destroy", {"public_id": "a"})

    run(play)


def test_a_connection_that_the_upstream_closed_while_idle_is_not_used_again() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = iter([None, None, Trouble.CLOSES_IDLE])
        for _ in range(5):
            await client.upload(stub.upstream, complete(stub.upstream), pieces(), None)
            await turns()
        assert stub.connections == 2

    run(play, Times(idle=300))


# --- exceptions of the caller


class Disconnected(Exception):
    pass


@pytest.mark.parametrize("error", [Disconnected("gone"), OSError(5, "disk"), TimeoutError(), SignatureUsed("used")])
@pytest.mark.parametrize("where", ["file", "sign"])
def test_an_exception_of_file_or_sign_ends_the_request_and_comes_back(error: Exception, where: str) -> None:
    async def torn() -> AsyncIterator[bytes]:
        yield BYTES
        await asyncio.sleep(0.05)
        raise error

    async def refuse() -> Mapping[str, str]:
        raise error

    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        signer = Signer(stub.upstream)
        file, sign = (torn(), signer) if where == "file" else (pieces(), refuse)
        with pytest.raises(type(error)) as raised:
            await client.upload(stub.upstream, CALL, file, sign)
        assert raised.value is error and signer.calls == 0
        await asyncio.sleep(0.05)
        for request in stub.requests:
            assert not request.closed and not request.complete
        assert stub.store == {}

    run(play)


def test_a_cancelled_upload_ends_after_sign_has_ended_and_sends_no_signature() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        signer = Signer(stub.upstream)
        signer.go.clear()
        upload = asyncio.create_task(client.upload(stub.upstream, CALL, pieces(), signer))
        await signer.begun.wait()
        upload.cancel()
        await asyncio.sleep(0.05)
        assert not upload.done()
        signer.go.set()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert signer.ends == 1 and not stub.requests[0].closed and stub.store == {}

    run(play)


def test_the_file_is_not_in_use_any_more_when_the_call_returns() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = repeat(Trouble.EARLY_413)
        left = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            try:
                yield BYTES
                await asyncio.sleep(60)
            finally:
                left.set()

        assert (await client.upload(stub.upstream, CALL, slow(), Signer(stub.upstream))).status == 413
        assert left.is_set()

    run(play)


# --- limits


@pytest.mark.parametrize("trouble", [Trouble.HANGS, Trouble.DRIPS])
def test_an_answer_has_a_deadline_as_a_whole(trouble: Trouble) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = stub.reads = repeat(trouble)
        with pytest.raises(OutcomeUnknown):
            await client.upload(stub.upstream, CALL, pieces(), Signer(stub.upstream))
        with pytest.raises(OutcomeUnknown):
            await client.post(stub.upstream, "image/destroy", {"public_id": "a"})

    run(play, Times(reply=0.3))


def test_a_look_up_has_a_short_deadline_and_a_patient_read_the_long_one() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.reads = repeat(Trouble.HANGS)
        patient = asyncio.create_task(client.call(stub.upstream, "ping", AdminCall("GET", (), "", b"")))
        while not stub.requests:
            await asyncio.sleep(0.001)
        async with asyncio.timeout(60):
            with pytest.raises(UpstreamUnavailable):
                await client.get(stub.upstream, "ping")
        assert not patient.done()
        patient.cancel()
        await asyncio.wait([patient])

    run(play, Times(look=0.1))


def test_the_deadline_of_the_answer_begins_with_the_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        clock, signer = Clock(monkeypatch), Signer(stub.upstream)
        signer.go.clear()
        upload = asyncio.create_task(client.upload(stub.upstream, CALL, pieces(), signer))
        await signer.begun.wait()
        clock.ahead = 100
        await turns()
        signer.go.set()
        assert (await upload).status == 200

    run(play, Times(reply=60, stall=60))


def test_an_upstream_that_stops_reading_is_unavailable_and_holds_back_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    async def large() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(300):
            yield bytes(65_536)
            taken += 65_536

    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.reading.clear()
        # Its connections inherit this. The kernel would take up to tcp_rmem, here 32 MiB, that the stub never reads.
        stub._server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
        clock = Clock(monkeypatch)
        upload = asyncio.create_task(client.upload(stub.upstream, CALL, large(), Signer(stub.upstream)))
        while not taken:
            await asyncio.sleep(0)
        while not upload.done():
            await turns()
            clock.ahead += 100
        with pytest.raises(UpstreamUnavailable):
            await upload
        assert 0 < taken < 8 * 1024 * 1024  # what the sockets of both sides hold
        port = urlsplit(stub.upstream.prefix).port
        left = [each for each in psutil.Process().net_connections() if each.raddr and each.raddr.port == port]
        assert left == []  # the connection does not wait until the upstream reads again
        held = taken

        stub.reading.set()
        signer = Signer(stub.upstream)
        assert (await client.upload(stub.upstream, CALL, large(), signer)).status == 200
        assert taken == held + 300 * 65_536

    run(play, Times(stall=60))


def test_the_answer_has_a_largest_size() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = repeat(Trouble.HUGE)
        with pytest.raises(OutcomeUnknown) as raised:
            await client.upload(stub.upstream, CALL, pieces(), Signer(stub.upstream))
        assert str(MOST_BYTES) in raised.value.for_operator

    run(play)


# --- secrets and TLS


def test_no_error_has_the_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)

    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = stub.reads = repeat(Trouble.SHORT)
        nowhere = replace(stub.upstream, prefix="http://127.0.0.1:9")
        fields = signed(stub.upstream, {"public_id": "a"}, int(time.time()))
        for upstream in (stub.upstream, nowhere):
            for attempt in (
                client.get(upstream, "ping"),
                client.post(upstream, "image/destroy", fields),
                client.upload(upstream, CALL, pieces(), Signer(upstream)),
            ):
                with pytest.raises(UponceError) as raised:
                    await attempt
                shown = (
                    f"{raised.getrepr(style='long')} {raised.value.detail} {raised.value!r} {raised.value.__cause__!r}"
                )
                assert raised.value.__cause__ is None
                assert fields["signature"] not in f"{raised.value.detail}{raised.value}"
                assert upstream.secret not in shown.replace(repr(upstream.secret), "")

    run(play)
    assert "the-secret" not in caplog.text


def test_no_error_has_the_query_of_a_call() -> None:
    """It has what a person is called, or a signature. aiohttp names the whole URL of an answer that it cannot read."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 nonsense\r\n\r\n")
        writer.close()

    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            account = replace(stub.upstream, prefix=f"http://127.0.0.1:{port}")
            with pytest.raises(UpstreamUnavailable) as raised:
                await client.get(account, "usage", [("q", "Jane"), ("signature", "ab" * 20)])
        assert raised.value.detail.startswith("/v1_1/up/usage: ClientResponseError ")
        assert "Jane" not in raised.value.detail

    run(play)


def test_an_upstream_with_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))

    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        with pytest.raises(UpstreamUnavailable) as raised:
            await client.upload(stub.upstream, complete(stub.upstream), pieces(), None)
        assert "CERTIFICATE_VERIFY_FAILED" in raised.value.for_operator and stub.requests == []

    run(play, tls=context)
