"""What an upstream receives from the relay's HTTP client, and what comes back: a stub, and a real server."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from dataclasses import replace
from itertools import repeat

import pytest

from tests.adapters.upstream.calling import BYTES, CALL, KEY, MD5, Signer, complete, pieces, run, turns
from tests.server import Server
from tests.upstreams import ANSWERS, HTML, LIMIT, StubAsset, StubUpstream, Trouble
from uponce.adapters.upstream.client import HttpUpstream
from uponce.app.ports.relaying import AdminCall, Sign, UpstreamCall, UpstreamReply
from uponce.core.errors import InvalidParameter, OutcomeUnknown, UpstreamUnavailable
from uponce.core.upstream import signed
from uponce.core.values import Upstream

# --- what is sent


def test_the_fields_go_first_then_the_file_then_what_signs_them() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        reply = await client.upload(stub.upstream, CALL, pieces(), Signer(stub.upstream))
        assert (reply.status, reply.is_early, stub.store[KEY].etag) == (200, False, MD5)
        (request,) = stub.requests
        assert request.names == ["public_id", "overwrite", "file", "timestamp", "api_key", "signature"]
        assert (request.headers["transfer-encoding"], request.complete) == ("chunked", True)
        assert request.parts[2] == ("file", "cat.png", BYTES)
        assert b"\r\nContent-Type: application/octet-stream\r\n\r\n\x00\x01" in request.body
        assert "cookie" not in request.headers and "authorization" not in request.headers

    run(play)


@pytest.mark.parametrize("is_signed_last", [True, False])
def test_a_file_of_known_size_makes_a_body_of_known_length(is_signed_last: bool) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        sized = replace(CALL, size=len(BYTES), filename="Ünï.png")
        call, sign = (sized, Signer(stub.upstream)) if is_signed_last else (complete(stub.upstream, sized), None)
        assert (await client.upload(stub.upstream, call, pieces(), sign)).status == 200
        (request,) = stub.requests
        assert int(request.headers["content-length"]) == len(request.body)
        assert (stub.store[KEY].etag, request.complete) == (MD5, True)
        assert "transfer-encoding" not in request.headers

    run(play)


def test_a_signed_form_says_its_length() -> None:
    """Some servers and proxies refuse a form without a length (411)."""

    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        fields = {"public_id": "Grüße & 100%"}
        await client.post(stub.upstream, "image/destroy", fields | signed(stub.upstream, fields, int(time.time())))
        (request,) = stub.requests
        assert "transfer-encoding" not in request.headers
        assert int(request.headers["content-length"]) == len(request.body) > 0

    run(play)


@pytest.mark.parametrize("off", [-1, 1])
def test_a_file_of_another_size_than_told_gets_no_signature(off: int) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        with pytest.raises(UpstreamUnavailable):
            await client.upload(stub.upstream, replace(CALL, size=len(BYTES) + off), pieces(), Signer(stub.upstream))
        assert all("signature" not in request.names for request in stub.requests)
        assert stub.store == {}

    run(play)


def test_without_sign_the_fields_are_complete_before_the_file() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        reply = await client.upload(stub.upstream, complete(stub.upstream), pieces(), None)
        assert (reply.status, stub.store[KEY].etag) == (200, MD5)
        assert stub.requests[0].names[-1] == "file"

    run(play)


async def assert_held_back(client: HttpUpstream, stub: StubUpstream) -> None:
    """Nothing that ends the request is sent before `sign` has returned."""
    signer = Signer(stub.upstream)
    signer.go.clear()
    async with asyncio.TaskGroup() as group:
        upload = group.create_task(client.upload(stub.upstream, CALL, pieces(), signer))
        await signer.begun.wait()
        await turns()
        (request,) = stub.requests
        early = (BYTES in request.body, request.closed, request.complete, "signature" in request.names)
        signer.go.set()
    assert early == (True, False, False, False)
    assert upload.result().status == 200
    assert "signature" in request.names and signer.calls == 1


class ClosesFirst(HttpUpstream):
    """The mutant: it ends the form before it signs."""

    async def upload(
        self, upstream: Upstream, call: UpstreamCall, file: AsyncIterable[bytes | bytearray], sign: Sign | None
    ) -> UpstreamReply:
        reply = await super().upload(upstream, call, file, None)
        assert sign is not None
        await sign()
        return reply


def test_no_closing_boundary_leaves_before_sign_has_returned() -> None:
    run(lambda stub, client: assert_held_back(client, stub))


def test_control_a_client_that_closes_the_form_before_it_signs_is_red() -> None:
    async def play(stub: StubUpstream, _: HttpUpstream) -> None:
        mutant = ClosesFirst()
        with pytest.raises(AssertionError, match=r"^assert \(True, True, True, False\) == "):
            await assert_held_back(mutant, stub)
        await mutant.close()

    run(play)


def test_a_filename_is_written_as_browsers_write_it() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        call = replace(CALL, filename='Ünï "q"\r\nX: y.png')
        await client.upload(stub.upstream, call, pieces(), Signer(stub.upstream))
        assert 'filename="Ünï %22q%22%0D%0AX: y.png"\r\n'.encode() in stub.requests[0].body

    run(play)


def test_chunks_of_a_file_have_their_headers() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        for start in (0, 2048):
            call = replace(CALL, span=f"bytes {start}-{start + 2047}/4096", upload_id="one")
            reply = await client.upload(stub.upstream, call, pieces(BYTES[start : start + 2048]), Signer(stub.upstream))
        assert reply.document is not None and reply.document["etag"] == MD5

    run(play)


def test_any_public_id_can_be_looked_up_and_destroyed() -> None:
    name = "fotos/Grüße & 100% #1? +;=日本"

    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        begun, call = time.time(), replace(CALL, fields={"public_id": name})
        await client.upload(stub.upstream, call, pieces(), Signer(stub.upstream, call.fields))
        path = f"resources/image/upload/{name}"
        reply = await client.get(stub.upstream, path, {"media_metadata": "true", "x": "a&b =ü"})
        assert reply.document is not None
        assert (reply.document["public_id"], reply.document["etag"]) == (name, MD5)
        assert ("x", "a&b =ü") in stub.requests[-1].query
        assert reply.date is not None and begun - 5 < reply.date <= time.time()
        fields = {"public_id": name}
        reply = await client.post(
            stub.upstream, "image/destroy", fields | signed(stub.upstream, fields, int(time.time()))
        )
        assert (reply.document, stub.store) == ({"result": "ok"}, {})
        assert (await client.get(stub.upstream, path)).status == 404

    run(play)


@pytest.mark.parametrize("path", ["..", "resources/../../x", "./ping", "a/."])
def test_no_path_leads_out_of_the_cloud(path: str) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        with pytest.raises(InvalidParameter):
            await client.get(stub.upstream, path)
        assert stub.requests == []

    run(play)


# --- what comes back


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        (Trouble.LIMITED, 420),
        (Trouble.REFUSED, 400),
        (Trouble.FAILED, 500),
        (Trouble.FAILED_LATE, 500),
        (Trouble.MOVED, 302),
        (Trouble.ACCEPTED, 200),
        (Trouble.WRONG_ETAG, 200),
        (Trouble.RENAMED, 200),
        (Trouble.CLOSES_IDLE, 200),
        (Trouble.DRIPS, 200),
    ],
)
def test_every_status_comes_back_as_an_answer(trouble: Trouble, status: int) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = iter([trouble])
        reply = await client.upload(stub.upstream, CALL, pieces(), Signer(stub.upstream))
        assert reply.status == status and len(stub.requests) == 1
        assert (reply.document is None) == (trouble is Trouble.MOVED)

    run(play)


def test_a_long_list_comes_back_and_a_longer_one_is_refused_with_the_limit() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.store[KEY] = StubAsset(*KEY, "", 1, 1, 0, {"alt": "x" * 4 * 1024 * 1024})
        reply = await client.get(stub.upstream, "resources/image/upload/a/b")
        assert reply.document is not None and len(reply.body) > 4 * 1024 * 1024
        stub.uploads = stub.reads = repeat(Trouble.HUGE)
        with pytest.raises(UpstreamUnavailable, match=r"more than 16777216 bytes\. Ask for fewer results"):
            await client.get(stub.upstream, "resources/image")
        asked = AdminCall("POST", (), "application/json", b"{}")
        with pytest.raises(OutcomeUnknown, match=r"more than 16777216 bytes\. Ask for fewer results"):
            await client.call(stub.upstream, "resources/search", asked)

    run(play)


@pytest.mark.parametrize("trouble", [Trouble.HTML, Trouble.TORN_JSON])
def test_what_is_no_json_has_no_document(trouble: Trouble) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = iter([trouble])
        reply = await client.upload(stub.upstream, CALL, pieces(), Signer(stub.upstream))
        assert (reply.status, reply.document) == (200, None)
        assert reply.body == HTML.decode() or '"public_id"' in reply.body

    run(play)


NESTED = 100_000


@pytest.mark.parametrize(
    ("body", "document"),
    [
        *((body, None) for body in (b"[1]", b"7", b'"x"', b"null", b"", b"[" * NESTED, b'{"a":' * NESTED)),
        (b'{"a":[NaN,-Infinity,1e999,1.5,7]}', {"a": [None, None, None, 1.5, 7]}),
        (b'{"a":"\xff"}', {"a": "\ufffd"}),
        (b'{"\\ud800":"\\udc00 \\ud83d\\ude00"}', {"\ufffd": "\ufffd \N{GRINNING FACE}"}),
        (b'\xef\xbb\xbf{"a":true}', {"a": True}),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_document_is_an_object_of_json_that_every_database_can_store(
    body: bytes, document: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the JSON has a fault that other parsers let pass: the upload has succeeded."""
    monkeypatch.setitem(ANSWERS, Trouble.HTML, (200, body, {}))

    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = iter([Trouble.HTML])
        reply = await client.upload(stub.upstream, CALL, pieces(), Signer(stub.upstream))
        assert reply.document == document
        reply.body.encode()

    run(play)


def test_clients_see_the_headers_that_limit_rates_and_no_cookie() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads, stub.reads = iter([Trouble.LIMITED, Trouble.REFUSED]), repeat(Trouble.LIMITED)
        replies = [await client.upload(stub.upstream, CALL, pieces(), Signer(stub.upstream)) for _ in range(2)]
        assert dict(replies[0].headers) == LIMIT
        assert dict(replies[1].headers) == {"X-Cld-Error": "Invalid image file"}
        assert (await client.get(stub.upstream, "ping")).headers == replies[0].headers
        assert "cookie" not in stub.requests[-1].headers

    run(play)


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield BYTES
        await asyncio.sleep(0)


async def ends_during_the_answer() -> AsyncIterator[bytes]:
    yield BYTES
    await turns()


@pytest.mark.parametrize("file", [endless, ends_during_the_answer])
def test_an_answer_before_the_end_of_the_body_comes_back_and_nothing_is_signed(
    file: Callable[[], AsyncIterator[bytes]],
) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = repeat(Trouble.EARLY_413)
        signer = Signer(stub.upstream)
        reply = await client.upload(stub.upstream, CALL, file(), signer)
        assert (reply.status, reply.body, reply.is_early, signer.calls) == (413, HTML.decode(), True, 0)
        assert not stub.requests[0].closed

    run(play)


@pytest.mark.parametrize("file", [endless, ends_during_the_answer])
def test_an_answer_to_a_chunk_before_its_end_is_early(file: Callable[[], AsyncIterator[bytes]]) -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        chunk = replace(complete(stub.upstream), span="bytes 0-4095/8192", upload_id="one")
        stub.uploads = iter([Trouble.EARLY_200])
        for blocks, is_early in ((file(), True), (pieces(), False)):
            assert (await client.upload(stub.upstream, chunk, blocks, None)).is_early is is_early

    run(play)


def test_an_answer_while_it_is_signed_comes_back_after_sign_has_ended_and_no_signature_leaves() -> None:
    async def play(stub: StubUpstream, client: HttpUpstream) -> None:
        stub.uploads = repeat(Trouble.EARLY_413)
        stub.reading.clear()  # so the answer comes when the file has left
        signer = Signer(stub.upstream)
        signer.go.clear()
        upload = asyncio.create_task(client.upload(stub.upstream, CALL, pieces(), signer))
        await signer.begun.wait()
        stub.reading.set()
        await turns()
        assert not upload.done()
        signer.go.set()
        reply = await upload
        assert (reply.status, reply.is_early, signer.ends) == (413, True, 1)
        assert not stub.requests[0].closed

    run(play)


# --- a real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("upstream") / "data") as server:
        yield server


@pytest.mark.parametrize("last", [True, False], ids=["signature last", "signature first"])
def test_a_round_trip_with_a_real_server(server: Server, last: bool) -> None:
    upstream = Upstream(server.cloud, server.server.key, server.server.secret, prefix=server.base)
    name = f"größe/日本 {last}"
    fields = {"public_id": name, "context": "a=b|c=ü"}
    call = UpstreamCall("raw", fields, 'ein "Bild".bin')

    async def play() -> None:
        begun, client = time.time(), HttpUpstream()
        if last:
            reply = await client.upload(upstream, call, pieces(), Signer(upstream, fields))
        else:
            reply = await client.upload(upstream, complete(upstream, call), pieces(), None)
        assert reply.document is not None, reply
        assert (reply.status, reply.document["etag"], reply.document["public_id"]) == (200, MD5, name)
        assert reply.date is not None and begun - 5 < reply.date <= time.time()
        stale = await client.upload(upstream, call, pieces(), Signer(upstream, fields, age=4000))
        assert stale.status == 400 and "Stale request" in stale.body
        gone = {"public_id": name}
        sent = gone | signed(upstream, gone, int(time.time()))
        assert (await client.post(upstream, "raw/destroy", sent)).document == {"result": "ok"}
        await client.close()

    asyncio.run(play())
