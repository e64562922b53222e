"""Pass an upload on to its cloud's upstream: file → pending → signature → outcome. The pending row is the arbiter.

The upstream completes no request without a signature. uponce makes that signature only after a transaction has recorded
the grant as pending. So of any number of attempts one is passed on. The upstream's answer decides: a success spends the
grant, and a refusal frees it. Any other answer leaves the grant pending until a look-up finds the outcome.
"""

import asyncio
import logging
import re
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from uponce.app.authorise import Admitted
from uponce.app.ports import Sign, UpstreamCall, UpstreamReply
from uponce.app.relaying.chunks import Data, RelayChunk
from uponce.app.services import Services
from uponce.core.errors import (
    DatabaseUnavailable,
    OutcomeUnknown,
    Unavailable,
    UponceError,
    UpstreamRefused,
    UpstreamUnavailable,
)
from uponce.core.relaying import (
    Forwarded,
    Outcome,
    Relay,
    bound,
    error_message,
    outcome_of,
    refuses_timestamp,
    repeat_hash,
    trailer_timestamp,
)
from uponce.core.upstream import aim, seed_of, signed
from uponce.core.values import Digest

log = logging.getLogger("uponce")

_FIRST_LOOK_SECONDS = 60  # after the time for the answer: a request that is answered writes its outcome before
_RETRY_SECONDS = 10
_STALE_SECONDS = 60  # it lasts until the operator acts, and each attempt sends the whole file
_PATIENCE_SECONDS, _PAUSE_SECONDS = 10, 0.5  # with a database that fails when the outcome is known
_NO_NAME = "file"
_SIGNATURE = re.compile("[0-9A-Fa-f]{40,}")
_UNREACHED = "The upstream cannot be reached, or does not answer. The signature is not spent. Send the upload again."
_TOO_LARGE = (
    "A server on the way to the upstream takes no file of this size. The signature is not spent. Send a smaller file."
)
_STALE = (
    "The upstream refuses the uploads of this server, because of its clock or its settings. The signature is not "
    f"spent. Wait {_STALE_SECONDS} seconds, then send the upload again."
)
_UNCONFIRMED = (
    "The server's database did not confirm that the upload may be passed on. The signature is not spent. Send the "
    "upload again."
)
_UNWRITTEN = (
    "The upstream accepted the upload, but the server's database does not answer. uponce records the upload later. "
)
_UNKNOWN = "The upload was passed on, but the upstream did not say what became of it. uponce looks for it. "
_AGAIN = f"Wait {_RETRY_SECONDS} seconds, then ask for the signature's status, or send this upload again."
_NOT_AGAIN = "A repeat may store the file again: this signature has other uses. Look for the file in the account first."


class Repeated(Exception):
    """The Idempotency-Key has an answer already."""

    def __init__(self, answer: Forwarded) -> None:
        super().__init__()
        self.answer = answer


class Relaying:
    """One attempt to pass an upload on. It must run to its end, also if its request is cancelled.

    Each way of sending returns the upstream's answer to a completed upload. UpstreamRefused, UpstreamUnavailable and
    DatabaseUnavailable spend nothing. OutcomeUnknown leaves the grant pending. `digest` is that of the whole file; it
    must be set before the last byte is sent.
    """

    def __init__(self, services: Services, admitted: Admitted) -> None:
        upstream = admitted.upstream
        assert upstream is not None
        self._services = services
        self._upstream = upstream
        self._admitted = admitted
        self._attempt = services.ids.hex(32)
        key = admitted.idempotency_key
        self._key_hash = None if key is None else repeat_hash(key)
        self._may_double = key is None and admitted.grant.max_uses > 1
        seed = seed_of(admitted.grant, self._attempt, self._key_hash)
        self._target = aim(upstream, admitted.spec, admitted.params, admitted.requested, admitted.filename, seed)
        self._pending: Relay | None = None
        self.digest: Digest | None = None

    async def send_small(self, file: AsyncIterator[Data]) -> Forwarded:
        """Send a file of known digest. Make the grant pending at the same time, which takes about as long."""
        return await self._to_the_end(self._send_small(file))

    async def send(self, file: AsyncIterator[Data], size: int | None = None) -> Forwarded:
        """Send a file in one request, perhaps while it arrives. Then its size may be unknown."""
        return await self._to_the_end(self._upload(self._call(size), file, self._sign))

    async def send_chunks(self, chunks: AsyncGenerator[RelayChunk, None]) -> Forwarded:
        """Send a file in chunks. Only the last one completes the upload, so only the last waits for its signature."""
        return await self._to_the_end(self._send_chunks(chunks))

    async def _to_the_end(self, sending: Coroutine[Any, Any, UpstreamReply]) -> Forwarded:
        try:
            reply = await sending
        except Repeated as repeated:
            return repeated.answer
        except OutcomeUnknown as error:
            if self._pending is None and await self._is_taken_back():
                raise DatabaseUnavailable(_UNCONFIRMED, detail=error.detail) from error
            await self._hasten()
            if self._may_double and self._pending is not None:
                raise self._unknown(_UNKNOWN, error.detail) from error
            raise
        except UpstreamUnavailable:  # without its signature the request is not complete
            await self._free()
            raise
        return await self._conclude(reply)

    async def _send_small(self, file: AsyncIterator[Data]) -> UpstreamReply:
        assert self.digest is not None
        signing = asyncio.ensure_future(self._sign())
        call = self._call(self.digest.size)
        uploading = asyncio.ensure_future(self._upload(call, file, lambda: asyncio.shield(signing)))
        try:
            await asyncio.shield(
                signing
            )  # to its end, also if the upload has failed: the signing may have taken the grant
        except BaseException:
            uploading.cancel()
            await asyncio.gather(uploading, return_exceptions=True)
            raise
        return await uploading

    async def _upload(self, call: UpstreamCall, file: AsyncIterator[Data], sign: Sign) -> UpstreamReply:
        return await self._services.upstream.upload(self._upstream, call, file, sign)

    async def _send_chunks(self, chunks: AsyncGenerator[RelayChunk, None]) -> UpstreamReply:
        async with aclosing(chunks):
            async for chunk in chunks:
                call = replace(self._call(chunk.size), span=chunk.span, upload_id=self._attempt)
                if chunk.is_last:
                    return await self._upload(call, chunk.blocks, self._sign)
                reply = await self._send_early(call, chunk.blocks)
                if reply.is_early or not _is_success(reply):
                    return reply
                if (reply.document or {}).get("done") is not False:
                    raise self._taken_for_a_file(call, reply)
        raise AssertionError("chunks have a last one")

    async def _send_early(self, call: UpstreamCall, file: AsyncIterator[Data]) -> UpstreamReply:
        """Send a chunk that does not complete the upload."""
        upstream, now = self._upstream, int(self._services.clock.now())
        fields = {**call.fields, **signed(upstream, call.fields, now)}
        try:
            return await self._services.upstream.upload(upstream, replace(call, fields=fields), file, None)
        except OutcomeUnknown as error:
            raise UpstreamUnavailable(_UNREACHED, detail=error.detail) from error

    def _taken_for_a_file(self, call: UpstreamCall, reply: UpstreamReply) -> UpstreamUnavailable:
        """Return the error after a chunk whose answer does not say that the upstream waits for more."""
        log.error(
            "the upstream of cloud %s took a chunk (%s) for a whole file: its answer has no `done: false`. It may have "
            "an asset %r now with the bytes of this chunk only, perhaps in place of an older asset. Delete that asset "
            "before the upload is sent again. Check that the account takes uploads in chunks, and that each server on "
            "the way to it passes Content-Range and X-Unique-Upload-Id on",
            self._admitted.grant.cloud,
            call.span,
            (reply.document or {}).get("public_id", ""),
        )
        most = self._services.limits.relay_chunk_bytes
        return UpstreamUnavailable(
            "The upstream took a part of the file for the whole file. The signature is not spent. Send a file of at "
            f"most {most} bytes.",
            detail=told(reply),
        )

    def _call(self, size: int | None) -> UpstreamCall:
        return UpstreamCall(self._target.kind, self._target.fields, self._admitted.filename or _NO_NAME, size)

    async def _sign(self) -> Mapping[str, str]:
        """Make the grant pending, and return the fields that sign. No signature exists before that."""
        services, admitted = self._services, self._admitted
        assert self.digest is not None
        new = Relay(
            id=self._attempt,
            cloud=admitted.grant.cloud,
            grants=(admitted.grant,),
            target=self._target,
            digest=self.digest,
            caller=admitted.caller,
            key_hash=self._key_hash,
            series_id=admitted.series_id,
            bound=bound(services.limits),
        )
        with services.metrics.committing():
            begun = await services.database.begin_relay(new, services.limits.relay_answer + _FIRST_LOOK_SECONDS)
        if isinstance(begun, Forwarded):
            raise Repeated(begun)
        self._pending = begun
        stamp = trailer_timestamp(begun.pending_at, self._upstream.window, services.limits.relay_fence)
        return signed(self._upstream, self._target.fields, stamp)

    async def _conclude(self, reply: UpstreamReply) -> Forwarded:
        outcome = outcome_of(reply.status, reply.document)
        if self._pending is None or reply.is_early:
            await self._free()
            raise _refusal(reply) if outcome is Outcome.REFUSED else _unreached(reply)
        if outcome is Outcome.REFUSED:
            await self._free()
            raise _refusal(reply)
        if outcome is Outcome.UNKNOWN:
            await self._hasten()
            raise self._unknown(_UNKNOWN, told(reply))
        return await self._spend(self._pending, reply)

    def _unknown(self, what: str, detail: str) -> OutcomeUnknown:
        """Return the error with what its client may do."""
        cure = _NOT_AGAIN if self._may_double else _AGAIN
        return OutcomeUnknown(what + cure, detail=detail, retry_after=_RETRY_SECONDS)

    async def _spend(self, pending: Relay, reply: UpstreamReply) -> Forwarded:
        answer = forwarded(reply, pending.digest.size)
        _warn_of_presets(pending, reply)
        try:
            owned = await self._end(pending, answer, _code(pending, reply))
        except Unavailable as error:
            await self._hasten()
            raise self._unknown(_UNWRITTEN, error.for_operator) from error
        if not owned:
            log.warning("relay %s: its outcome was written before %r was answered", pending.id, answer.public_id)
        return answer

    async def _end(self, pending: Relay, answer: Forwarded | None, code: str = "") -> bool:
        """Write the outcome, also if the database fails for some seconds. Return False if the row is gone.

        A repeat after a lost reply finds the row gone.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE_SECONDS
        while True:
            try:
                return await self._services.database.end_relay(pending, answer, code)
            except Unavailable:
                if loop.time() > until:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _is_taken_back(self) -> bool:
        """Give back the grants that a commit without a reply made pending. Return whether that was done.

        No signature was made, and none will be.
        """
        try:
            begun = await self._services.database.find_relay(self._attempt)
            if begun is None or await self._end(begun, None):
                return begun is not None
            return (
                await self._services.database.find_relay(self._attempt) is None
            )  # after a lost reply, the row is gone
        except UponceError as error:
            log.warning("relay %s stays pending if it is: %s", self._attempt, error.for_operator)
            return False

    async def _free(self) -> None:
        """Give the grants back. If this fails, a look-up does it later, since it finds no asset."""
        if self._pending is not None:
            await self._or_log("stays pending", self._end(self._pending, None))

    async def _hasten(self) -> None:
        """Make the look-up of the outcome due now."""
        if self._pending is not None:
            await self._or_log("is looked up later", self._services.database.hasten_effect(self._pending.id))

    async def _or_log(self, what: str, work: Awaitable[object]) -> None:
        try:
            await work
        except UponceError as error:
            log.warning("relay %s %s: %s", self._attempt, what, error.for_operator)


def forwarded(reply: UpstreamReply, size: int) -> Forwarded:
    """Return an upstream's answer in the form for clients. `size` is how many bytes the upload sent."""
    document = reply.document or {}
    return Forwarded(
        reply.status,
        reply.body,
        asset_id=_text(document.get("asset_id")),
        public_id=_text(document.get("public_id")),
        headers=reply.headers,
        size=size,
    )


def _text(value: object) -> str:
    """Return a text that every database can store."""
    return value.replace("\0", "") if isinstance(value, str) else ""


def _is_success(reply: UpstreamReply) -> bool:
    return 200 <= reply.status < 300 and reply.document is not None and "error" not in reply.document


def _code(pending: Relay, reply: UpstreamReply) -> str:
    """Return `existing` if the upstream answered with an asset that has other bytes."""
    document = reply.document or {}
    return "existing" if document.get("existing") and document.get("etag") != pending.digest.md5 else ""


def _warn_of_presets(pending: Relay, reply: UpstreamReply) -> None:
    """Log an asset that no look-up by name would have found after a lost answer."""
    target, document = pending.target, reply.document or {}
    public_id = unicodedata.normalize("NFC", _text(document.get("public_id")))
    bare = [unicodedata.normalize("NFC", name) for _, name in target.names if name]
    names = [f"{target.type}/{name}" for name in bare]
    made = f"{_text(document.get('type')) or target.type}/{public_id}"
    if not public_id or not names or made in names:
        return
    cure = "may rename uploads or set their delivery type: add identify=context to the URL of the upstream"
    if target.marker is not None:  # only placed elsewhere: there is no cure for a name that a preset makes
        if not f"/{public_id}".endswith(tuple(f"/{name}" for name in bare)):
            return
        cure = "may set the type, folder or prefix. Sign the same values, so that uponce finds what is overwritten"
    log.warning(
        "the upstream of cloud %s made the asset %r instead of %r. A preset of the account %s",
        pending.cloud,
        made,
        names[0],
        cure,
    )


def _refusal(reply: UpstreamReply) -> UpstreamRefused | UpstreamUnavailable:
    if refuses_timestamp(reply.status, reply.document):
        log.error(
            "the account refuses the times of this server's signatures: for its clock, for `window` in its URL, for a "
            "fence of the account, or because this server stood still. `uponce doctor` compares the clocks. If they "
            "agree, correct `window`. After a fence or a restore of an uponce, give the relay a new key of it: %s",
            told(reply),
        )
        unavailable = UpstreamUnavailable(_STALE, detail=told(reply), retry_after=_STALE_SECONDS)
        unavailable.is_refusal = True
        return unavailable
    message = _text(error_message(reply.document or {}))
    refusal = UpstreamRefused(message or f"The upstream answered {reply.status}.")
    refusal.status, refusal.body, refusal.headers = reply.status, reply.body, reply.headers
    if refusal.may_pass_later:
        log.error(
            "the account takes no upload now: for its credentials, a right, its quota, or for a time that it names. "
            "Look at its usage; `uponce doctor` checks the key: %s",
            told(reply),
        )
    return refusal


def _unreached(reply: UpstreamReply) -> UpstreamRefused | UpstreamUnavailable:
    """Return the error after an answer of a server in between, to a request that was not complete."""
    if reply.status != 413:
        return UpstreamUnavailable(_UNREACHED, detail=told(reply))
    log.error(
        "a server on the way to the account must take larger requests (nginx: client_max_body_size): %s", told(reply)
    )
    return UpstreamRefused(_TOO_LARGE)


def told(reply: UpstreamReply) -> str:
    """Return the beginning of an answer for the log, without signatures."""
    body = _SIGNATURE.sub("…", reply.body[:1000])
    return f"the upstream answered {reply.status}: {body[:200]!r}"
