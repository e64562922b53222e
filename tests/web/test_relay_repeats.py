"""A repeated upload of a cloud with an upstream: its Idempotency-Key makes one asset, whatever was lost."""

import pytest

from tests.upstreams import StubUpstream, Trouble
from tests.web.relays import md5
from tests.web.test_relay import reconcile
from tests.world import PNG, World, assert_accepted, assert_refused


def test_a_repeat_with_its_key_gets_the_upstreams_answer_again(relay: World, stub: StubUpstream) -> None:
    fields, headers = relay.sign(), {"idempotency-key": "one"}
    first = assert_accepted(relay.upload(fields, kind="raw", headers=headers))
    again = assert_accepted(relay.upload(fields, kind="raw", headers=headers))
    assert again.json == first.json
    assert again.headers["idempotent-replayed"] == "true"
    assert_refused(relay.upload(fields, b"other", kind="raw", headers=headers), 400, "idempotency_key_reused")
    assert_refused(relay.upload(fields, kind="raw"), 400, "signature_used")
    assert len(stub.store) == 1


@pytest.mark.parametrize("uses", [1, 2, None])
def test_a_repeat_after_a_lost_reply_gets_what_was_looked_up(
    relay: World, stub: StubUpstream, uses: int | None
) -> None:
    fields = relay.sign(key=relay.server) if uses is None else relay.sign({"max_uses": uses})
    headers = {"idempotency-key": "one"}
    stub.uploads = iter([Trouble.SILENT])
    for file in (PNG, PNG, b"other bytes"):
        assert_refused(relay.upload(fields, file, kind="raw", headers=headers), 503, "outcome_unknown")
    reconcile(relay)
    answer = assert_accepted(relay.upload(fields, kind="raw", headers=headers))
    assert answer.json["etag"] == md5(PNG)
    assert len(stub.store) == 1
