"""Files that a client sends in chunks or by tus to a cloud with an upstream that does not take them at once."""

from dataclasses import replace

import pytest

from tests.upstreams import StubUpstream, Trouble
from tests.web.relays import md5
from tests.web.test_relay import chunk, status_of, stored
from tests.world import World, assert_accepted
from uponce.core.policy import Limits
from uponce.core.values import GrantStatus

FILE, HALF = b"0123456789abcdef" * 400_000, 5 * 1024 * 1024
IN_CHUNKS = Limits(max_failed_credentials=10**6, relay_whole_bytes=4 * 1024 * 1024, relay_chunk_bytes=10**6)


@pytest.mark.parametrize("status", [401, 420])
def test_an_account_that_takes_no_file_now_leaves_the_chunks_for_the_next_try(
    relay: World, stub: StubUpstream, status: int
) -> None:
    relay.swap(limits=IN_CHUNKS)
    fields, account = relay.sign(), stub.upstream
    chunk(relay, fields, FILE, 0, HALF)
    if status == 401:
        stub.upstream = replace(account, secret="rotated")
    else:
        stub.uploads = iter([Trouble.LIMITED])
    assert chunk(relay, fields, FILE, HALF, len(FILE)).status == status
    stub.upstream = account
    assert_accepted(chunk(relay, fields, FILE, HALF, len(FILE)))
    assert stored(stub) == [md5(FILE)]
    assert not relay.traces().spooled


def test_an_account_that_refuses_the_file_itself_ends_the_series(relay: World, stub: StubUpstream) -> None:
    relay.swap(limits=IN_CHUNKS)
    fields, stub.uploads = relay.sign(), iter([Trouble.REFUSED])
    chunk(relay, fields, FILE, 0, HALF)
    assert chunk(relay, fields, FILE, HALF, len(FILE)).status == 400
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert not relay.traces().spooled
    assert relay.sql("SELECT count(*) FROM series") == 0
