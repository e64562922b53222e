"""The body of a request: what it keeps of the bytes that have passed through it."""

import asyncio
import weakref

import pytest

from tests.web.bare import request
from uponce.core.errors import RequestTooSlow
from uponce.web import whole_bodies
from uponce.web.cloudinary import forms
from uponce.web.receiving import Block
from uponce.web.request import Body, Message


def test_the_first_bytes_are_given_again_and_then_kept_no_longer() -> None:
    """Each of many slow uploads would keep up to 128 KiB."""

    async def look() -> tuple[list[bytes], list[bool]]:
        sent: list[weakref.ref[Block]] = []

        async def receive() -> Message:
            block = Block(bytes([len(sent)]) * 10)
            sent.append(weakref.ref(block))
            return {"type": "http.request", "body": block, "more_body": len(sent) < 3}

        body = Body(receive, 30)
        got = [bytes(await body.first())]
        alive = []
        async for block in body.chunks():
            got.append(bytes(block))
            del block
            alive.append(sent[0]() is not None)
        return got, alive

    got, alive = asyncio.run(look())
    assert got == [bytes(10), bytes(10), bytes([1]) * 10, bytes([2]) * 10]
    assert alive[1:] == [False, False]


def test_a_small_body_that_takes_too_long_may_be_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_bodies, "_SECONDS", 0.01)

    async def receive() -> Message:
        return await asyncio.Future()

    with pytest.raises(RequestTooSlow, match=r"longer than 0\.01 seconds") as refused:
        asyncio.run(forms.small_body(request({"method": "POST", "headers": []}, receive)))
    assert refused.value.retry_after == 1
