"""What the operator sees of an account that has presets, refuses the relay itself, or answers no look-up."""

import asyncio
from collections.abc import AsyncIterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.upstreams import StubUpstream
from tests.web.relays import EachOnItsLoop
from tests.world import World, assert_accepted
from uponce.app.ports.relaying import Sign, UpstreamCall, UpstreamReply
from uponce.core.values import Upstream


class Presets(EachOnItsLoop):
    """An account whose presets change what an asset is."""

    def __init__(self, change: Mapping[str, Any]) -> None:
        super().__init__()
        self._change = change

    async def upload(
        self, upstream: Upstream, call: UpstreamCall, file: AsyncIterable[bytes | bytearray], sign: Sign | None
    ) -> UpstreamReply:
        reply = await super().upload(upstream, call, file, sign)
        return replace(reply, document={**(reply.document or {}), **self._change})


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(
    ("change", "is_lost"), [({}, False), ({"public_id": "renamed"}, True), ({"type": "authenticated"}, True)]
)
def test_an_asset_that_no_look_up_would_find_is_logged(
    relay: World,
    stub: StubUpstream,
    caplog: pytest.LogCaptureFixture,
    change: Mapping[str, Any],
    is_lost: bool,
    marked: bool,
) -> None:
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=marked)))
    relay.swap(upstream=Presets(change))
    assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), kind="raw"))
    assert ("add identify=context" in caplog.text) is (is_lost and not marked)
