"""Read back what a commit without a reply stored."""

from contextlib import suppress
from dataclasses import replace

from uponce.app.ports import Committed, Draft
from uponce.app.services import Services
from uponce.core.errors import OutcomeUnknown, Unavailable
from uponce.core.values import Grant


async def read_back_upload(services: Services, grant: Grant, draft: Draft, unknown: OutcomeUnknown) -> Committed:
    """Return what `read_back` returns. If the commit of another upload has answered a repeat, return its answer."""
    with suppress(Unavailable):
        if draft.idempotency_key is not None:
            reply = await services.database.find_reply(grant.key, draft.idempotency_key)
            answer = None if reply is None or reply.sha256 != draft.asset.digest.sha256 else reply.answer
            if isinstance(answer, Committed):
                return replace(answer, replayed=answer.asset.blob_key != draft.asset.blob_key)
    return await read_back(services, draft.asset.blob_key, unknown)


async def read_back(services: Services, blob_key: str, unknown: OutcomeUnknown) -> Committed:
    """Return what a commit without an answer stored. Raise `unknown` while the outcome cannot be read."""
    with suppress(Unavailable):
        asset = await services.database.find_commit(blob_key)
        if asset is not None:
            return Committed(asset)
    raise unknown
