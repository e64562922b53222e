"""Operations on replies: the answers to uploads with an Idempotency-Key, for uploads that repeat them."""

import hashlib
from dataclasses import dataclass, replace

import msgspec

from uponce.adapters.database.steps import Ask, Params, Row, Steps, json_text, operation
from uponce.app.ports import Committed, Draft, Reply
from uponce.core.relaying import Forwarded, Relay
from uponce.core.values import Digest, Grant


@dataclass(frozen=True, slots=True)
class _Answer:
    """The content of a reply: one of the two."""

    committed: Committed | None = None
    forwarded: Forwarded | None = None


_ANSWER = msgspec.json.Decoder(_Answer)  # made at import, see catalog.py


@operation()
def find(_: float, grant_key: bytes, idempotency_key: str) -> Steps[Reply | None]:
    (replies,) = yield [ask_reply(grant_key, idempotency_key)]
    return reply_of(replies[0]) if replies else None


def ask_reply(grant_key: bytes, idempotency_key: str) -> Ask:
    return "find_reply", _repeat_params(grant_key, idempotency_key)


def repetition(reply: Reply, draft: Draft) -> Committed | None:
    """Return the answer to the first upload under that Idempotency-Key. Raise IdempotencyKeyReused for other bytes.

    Return None if that upload was passed on to an upstream: then the spend decides.
    """
    answer = reply.repeat(draft.asset.digest.sha256)
    return replace(answer, unneeded_blob=draft.asset.blob_key) if isinstance(answer, Committed) else None


def _repeat_params(grant_key: bytes, idempotency_key: str) -> Params:
    return {"grant_key": grant_key, "key_hash": hashlib.sha256(idempotency_key.encode()).digest()}


def reply_params(grant: Grant, draft: Draft, idempotency_key: str, committed: Committed) -> Params:
    answer = _Answer(committed=replace(committed, unneeded_blob=None))
    return _reply_params(grant, draft.asset.digest, answer) | _repeat_params(grant.key, idempotency_key)


def relayed_reply_params(grant: Grant, relay: Relay, forwarded: Forwarded) -> Params:
    return _reply_params(grant, relay.digest, _Answer(forwarded=forwarded)) | {"key_hash": relay.key_hash}


def _reply_params(grant: Grant, digest: Digest, answer: _Answer) -> Params:
    text = json_text(answer)
    return {"grant_key": grant.key, "sha256": digest.sha256, "answer": text, "keep_until": grant.keep_until}


def reply_of(row: Row) -> Reply:
    stored = _ANSWER.decode(row["answer"])
    answer = stored.committed or stored.forwarded
    assert answer is not None
    return Reply(answer, row["sha256"])
