"""Packets fall where they like: the same bytes mean the same, however they are cut, and whatever they are."""

import asyncio
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.asgi import BOUNDARY, END, Message, part, parts_of
from tests.world import PNG, World
from uponce.app.uploading.intake import Event, Field, FileStart, FormBytes
from uponce.core.errors import UponceError
from uponce.core.policy import Limits
from uponce.web.cloudinary.forms import multipart_events
from uponce.web.receiving import Block
from uponce.web.request import Body

Outcome = list[Event] | str


async def outcome(pieces: Iterable[bytes], boundary: str = "b") -> Outcome:
    """The events with the file's bytes joined, or the code of the refusal."""
    messages = iter(
        [
            *({"type": "http.request", "body": piece, "more_body": True} for piece in pieces),
            {"type": "http.request", "body": b"", "more_body": False},
        ]
    )

    async def receive() -> Message:
        return next(messages)

    events: list[Event] = []
    try:
        async for event in multipart_events(Body(receive, 30), f"multipart/form-data; boundary={boundary}", Limits()):
            if isinstance(event, FormBytes):  # how much has arrived depends on the packets
                continue
            if not isinstance(event, Field | FileStart):
                event = bytes(event)  # noqa: PLW2901
                if events and isinstance(events[-1], bytes):
                    event = events.pop() + event  # type: ignore[operator]  # noqa: PLW2901
            events.append(event)
    except UponceError as error:
        return error.code
    return events


async def outcome_of_blocks(pieces: Iterable[bytes]) -> Outcome:
    """The same of blocks of a large body, none of which may change while it is read."""
    pieces = list(pieces)
    blocks = [Block(piece) for piece in pieces]
    found = await outcome(blocks)  # type: ignore[arg-type]
    assert [bytes(block) for block in blocks] == pieces
    return found


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    return [data[a:b] for a, b in pairwise([0, *sorted(cuts), len(data)])]


_D = b'Content-Disposition: form-data; name="'
BODIES = {
    "a field and a file": b'--b\r\n%bt"\r\n\r\nv\r\n--b\r\n%bfile"; filename="f"\r\n\r\n\r\n--\r\r\n\r\n--b--\r\n',
    "look-alikes of the boundary": b'--b\r\n%bfile"; filename="f"\r\n\r\n\r\n-\r\n--\r\n--a\n--b\r--b\r\n--b--',
    "a data URI": b'--b\r\n%bfile"\r\n\r\ndata:;base64,aGk\r\n=\r\n--b--\r\n',
    "a leading line end": b'\r\n--b\r\n%bt"\r\n\r\nv\r\n--b--\r\n',
    "an epilogue": b'--b\r\n%bt"\r\n\r\nv\r\n--b--\r\n--b\r\nx',
    "nothing": b"--b--\r\n",
    "a preamble": b'xxxxx--b\r\n%bt"\r\n\r\nv\r\n--b--\r\n',
    "a preamble line": b'xxxxx\r\n--b\r\n%bt"\r\n\r\nv\r\n--b--\r\n',
    "a bare LF in a header": b'--b\r\n%bt\nu"\r\n\r\nv\r\n--b--\r\n',
    "a bare CR in a header": b'--b\r\n%bt\ru"\r\n\r\nv\r\n--b--\r\n',
    "a bare LF before a header": b'--b\r\n\n%bt"\r\n\r\nv\r\n--b--\r\n',
    "a bare CR before a header": b'--b\r\n\r%bt"\r\n\r\nv\r\n--b--\r\n',
    "a bare LF behind a header's name": b'--b\r\nContent-Disposition\n: form-data; name="t"\r\n\r\nv\r\n--b--\r\n',
    "a tail at the boundary": b'--b\r\n%bt"\r\n\r\nv\r\n--bx\r\n',
    "a torn end": b'--b\r\n%bt"\r\n\r\nv\r\n--b-',
    "a folded header": b'--b\r\n%bt";\r\n x="1"\r\n\r\nv\r\n--b--\r\n',
    "UTF-8 in two": b'--b\r\n%bt"\r\n\r\n\xe2\x98\x83\r\n--b--\r\n',
    "half a character": b'--b\r\n%bt"\r\n\r\n\xe2\x98\r\n--b--\r\n',
}


@pytest.mark.proof
@pytest.mark.parametrize("name", BODIES)
def test_every_way_to_cut_a_body_in_three_gives_one_outcome(name: str) -> None:
    body = BODIES[name].replace(b"%b", _D)

    async def play() -> None:
        whole = await outcome([body])
        assert await outcome(bytes([byte]) for byte in body) == whole
        for first in range(len(body)):
            for second in range(first, len(body)):
                pieces = split(body, (first, second))
                assert await outcome(pieces) == whole, (first, second)
                assert await outcome_of_blocks(pieces) == whole, (first, second)

    asyncio.run(play())


FUZZ = settings(
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
MORE = settings(FUZZ, max_examples=600)
EXPLORE = settings(FUZZ, max_examples=5000, derandomize=False)  # for `make full`: other forms each time
_SPICE = [
    b"\r\n",
    b"\r",
    b"\n",
    b"--",
    b"\0",
    b"\xff",
    b'"',
    b";",
    b"=",
    b"[]",
    b"%26",
    b":",
    b" ",
    END,
    END[:-4] + b"\r\n",
]


_LOOK_ALIKES = [b"\r", b"\n", b"-", b"\r\n", b"\r\n--", b"\r\n--boundar", b"\r\n--boundary", b"\r\n--boundary--", b"x"]


@settings(max_examples=300, database=None, derandomize=True)
@given(
    file=st.lists(st.sampled_from(_LOOK_ALIKES), max_size=12).map(b"".join),
    cuts=st.lists(st.floats(0, 1), max_size=6),
    blocks=st.lists(st.booleans(), min_size=7, max_size=7),
)
def test_blocks_of_a_large_body_may_end_anywhere_in_a_boundary(
    file: bytes, cuts: list[float], blocks: list[bool]
) -> None:
    body = b'--boundary\r\n%bfile"; filename="f"\r\n\r\n%b\r\n--boundary--\r\n' % (_D, file)
    pieces = split(body, [int(cut * len(body)) for cut in cuts])
    mixed = [Block(piece) if is_block else piece for piece, is_block in zip(pieces, blocks, strict=False)]

    async def play() -> None:
        assert await outcome(mixed, "boundary") == await outcome([body], "boundary")  # type: ignore[arg-type]

    asyncio.run(play())


@st.composite
def mutations(draw: st.DrawFn) -> list[tuple[str, float, float, bytes]]:
    """Up to four of: delete, double or move a slice, overwrite or insert; places as parts of the whole."""
    place = st.floats(0, 1, exclude_max=True)
    kinds = st.sampled_from(["delete", "double", "move", "insert", "overwrite"])
    text = st.one_of(st.sampled_from(_SPICE), st.binary(min_size=1, max_size=4))
    return draw(st.lists(st.tuples(kinds, place, place, text), min_size=1, max_size=4))


def mutate(body: bytes, steps: list[tuple[str, float, float, bytes]]) -> bytes:
    for kind, a, b, text in steps:
        start, end = sorted((int(a * len(body)), int(b * len(body))))
        taken, rest = body[start:end], body[:start] + body[end:]
        body = {
            "delete": rest,
            "double": body[:end] + taken + body[end:],
            "move": rest + taken,
            "insert": body[:start] + text + body[start:],
            "overwrite": body[:start] + text + body[start + len(text) :],
        }[kind]
    return body


def genuine(fields: dict[str, str]) -> bytes:
    return b"".join([parts_of(fields), part("file", PNG[:60], "cat.png"), END])


def is_an_upload_or_a_clear_refusal(
    shared: World, steps: list[tuple[str, float, float, bytes]], cuts: list[float]
) -> None:
    """Never an exception, never a 5xx; what is refused leaves nothing and costs the signature nothing."""
    fields = shared.sign({"tags": "a,b"})
    intact = genuine(fields)
    body = mutate(intact, steps)
    before = shared.traces()
    answer = shared.post(*split(body, [int(cut * len(body)) for cut in cuts]))
    after = shared.traces()
    assert answer.status in (200, 400, 401), answer.body
    if answer.status == 200:
        assert (after.assets, after.grants, after.spooled) == (before.assets + 1, before.grants + 1, before.spooled)
    else:
        assert after == before
        assert answer.code != "internal_error"
        assert shared.post(intact).status == 200


_mutated = given(steps=mutations(), cuts=st.lists(st.floats(0, 1), max_size=5))
test_a_mutated_form_is_an_upload_or_a_clear_refusal = FUZZ(_mutated(is_an_upload_or_a_clear_refusal))
test_more_mutated_forms = pytest.mark.proof(MORE(_mutated(is_an_upload_or_a_clear_refusal)))
test_other_mutated_forms = pytest.mark.full(EXPLORE(_mutated(is_an_upload_or_a_clear_refusal)))


def means_the_same_however_it_is_cut(steps: list[tuple[str, float, float, bytes]], cuts: list[float]) -> None:
    fields = {"timestamp": "1767225600", "tags[]": "a", "signature": "0" * 40, "api_key": "1"}
    body = mutate(parts_of(fields) + part("file", b"some\r\n--bytes", "cat.png") + END, steps)

    async def play() -> None:
        whole = await outcome([body], BOUNDARY)
        assert await outcome((bytes([byte]) for byte in body), BOUNDARY) == whole
        assert await outcome(split(body, [int(cut * len(body)) for cut in cuts]), BOUNDARY) == whole

    asyncio.run(play())


_cut = given(steps=mutations(), cuts=st.lists(st.floats(0, 1), min_size=1, max_size=6))
test_a_mutated_form_means_the_same_however_it_is_cut = FUZZ(_cut(means_the_same_however_it_is_cut))
test_more_forms_that_are_cut = pytest.mark.proof(MORE(_cut(means_the_same_however_it_is_cut)))
test_other_forms_that_are_cut = pytest.mark.full(EXPLORE(_cut(means_the_same_however_it_is_cut)))


def breaks_no_server(shared: World, query: str, content_type: str) -> None:
    headers = {"content-type": content_type}
    with shared.untouched():
        answer = shared.request("POST", f"{shared.route()}?{query}", headers=headers, chunks=[PNG])
    assert answer.status in (400, 401)


_asked = given(query=st.text(max_size=40), content_type=st.text(st.characters(max_codepoint=255), max_size=60))
test_no_query_and_no_content_type_breaks_the_server = FUZZ(_asked(breaks_no_server))
test_more_queries_and_content_types = pytest.mark.proof(MORE(_asked(breaks_no_server)))
test_other_queries_and_content_types = pytest.mark.full(EXPLORE(_asked(breaks_no_server)))
