"""The steps of an upload: verify → receive → hash → inspect → judge → store → commit. The commit is the only arbiter.

`upload` takes an upload whose bytes stream in: verified first, spooled, inspected, stored, committed.
`Pipeline` takes uploads that arrived whole, in memory. A group of them takes the steps together, in the thread of the
database: one sync makes the bytes of all durable, one transaction commits all. Each succeeds or fails on its own, and
none is answered before its group is durable.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from uponce.app.authorise import (
    Verified,
    check_grant_fresh,
    check_origin,
    find_key_in,
    record_refusal,
    verified_by,
)
from uponce.app.ports import Body, Candidate, Committed, Draft, GroupStore, Records, Refusal, Spooled
from uponce.app.relaying.held import Held, send_spooled
from uponce.app.relaying.relay import Passing
from uponce.app.services import Services
from uponce.app.unbroken import unbroken
from uponce.app.uploading.intake import Event, Intake, UploadRequest, passing_of
from uponce.core.errors import DatabaseUnavailable, GrantRefused, OutcomeUnknown, Refused, Unavailable, UponceError
from uponce.core.formats import stored_type
from uponce.core.naming import RANDOM_LENGTH, UNIQUE_SUFFIX_LENGTH, split_filename
from uponce.core.parameters import UploadSpec, check_route
from uponce.core.policy import judge_content, judge_media
from uponce.core.refusals import refusal_of
from uponce.core.relaying import Forwarded, signed_by
from uponce.core.signature import Signer, collect_known
from uponce.core.values import AssetName, Caller, Digest, Grant, MediaFacts, Payer, ResourceType

_QUICKLY_HASHED = 1024 * 1024  # takes 1.5 ms; a setting may let larger bodies come here
_MOST_SEEN = 20_000  # 2 MB

C = TypeVar("C", bound=Committed | Forwarded)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What to answer with: the asset, how it came about, and who signs the answer."""

    committed: Committed
    signer: Signer


def answered(outcome: Committed | Forwarded, signer: Signer) -> Uploaded | Forwarded:
    """Return what to answer with. The signer's key signs the answer, also that of an upstream."""
    return signed_by(signer, outcome) if isinstance(outcome, Forwarded) else Uploaded(outcome, signer)


async def upload(services: Services, request: UploadRequest, events: AsyncIterator[Event]) -> Uploaded | Forwarded:
    """Make one attempt, and return what it stored, or what the upstream of its cloud answered.

    A failure before the commit spends nothing and leaves nothing.
    """
    async with Intake(services, request) as intake:
        await intake.receive(events)
        verified = await intake.complete()
        assert intake.body is not None
        digest = await intake.body.seal()
        repeated = await _answer_again(services, request, verified, digest)
        if repeated is not None:
            return answered(repeated, verified.signer)
        if verified.key.upstream is not None:
            return answered(await _pass_on(services, request, intake, verified, digest), verified.signer)
        assert not isinstance(intake.body, Held)
        wanted = Wanted(request.cloud, request.requested, verified.spec, intake.filename)
        payer = Payer.of(verified.grant, request.caller)
        draft = await judge(services, wanted, payer, intake.body.key, intake.body.path, digest)
        draft = replace(draft, idempotency_key=request.idempotency_key)
        spooled = intake.release()
        assert not isinstance(spooled, Held)
        settling = _settle(services, verified, draft, spooled, request.caller)
        return Uploaded(await unbroken(counted(services, settling)), verified.signer)


async def _pass_on(
    services: Services, request: UploadRequest, intake: Intake, verified: Verified, digest: Digest
) -> Forwarded:
    """Judge what is judged here, and let the upload complete in the upstream of its cloud."""
    spec, upstream = verified.spec, verified.key.upstream
    assert upstream is not None and intake.body is not None
    judge_content(digest, spec, services.limits.max_bytes(request.requested, spec))
    if not isinstance(intake.body, Held) and services.inspects:
        wanted = Wanted(request.cloud, request.requested, spec, intake.filename)
        await inspect(services, intake.body.path, digest, wanted, Payer.of(verified.grant, request.caller))
    passing = passing_of(request, verified, upstream, intake.filename)
    return await unbroken(counted(services, _relay(services, passing, intake.release(), digest)))


async def _relay(services: Services, passing: Passing, body: Spooled | Held, digest: Digest) -> Forwarded:
    try:
        if isinstance(body, Held):
            return await body.finish(digest)
        return await send_spooled(services, passing, digest, body.blocks())
    except GrantRefused as refusal:
        await record_refusal(services, passing.grants[0], refusal.code, passing.caller)
        raise
    finally:
        await body.discard()


async def _answer_again(
    services: Services, request: UploadRequest, verified: Verified, digest: Digest
) -> Committed | Forwarded | None:
    """Return the stored answer, or None if there is none. A refusal for other bytes goes to the audit."""
    grant, spec = verified.grant, verified.spec
    if request.idempotency_key is None:
        return None
    judge_content(digest, spec, services.limits.max_bytes(request.requested, spec))
    reply = await services.database.find_reply(grant.key, request.idempotency_key)
    if reply is None:
        return None
    try:
        return reply.repeat(digest.sha256)
    except GrantRefused as refusal:
        await record_refusal(services, grant, refusal.code, request.caller)
        raise


async def _settle(services: Services, verified: Verified, draft: Draft, spooled: Spooled, caller: Caller) -> Committed:
    """Make the bytes durable, then commit.

    A definite refusal deletes the bytes. An unknown outcome deletes nothing: reading back may tell that the
    commit happened; else the sweeper finds out later.
    """
    try:
        await spooled.publish(stored_type(draft.facts))
        with services.metrics.committing():
            committed = await services.database.commit(verified.grant, draft, caller)
    except OutcomeUnknown as unknown:
        return await read_back_upload(services, verified.grant, draft, unknown)
    except (Refused, Unavailable) as error:
        await spooled.discard()
        if isinstance(error, GrantRefused):
            await record_refusal(services, verified.grant, error.code, caller)
        raise
    await drop_unneeded(services, committed)
    return committed


async def read_back_upload(services: Services, grant: Grant, draft: Draft, unknown: OutcomeUnknown) -> Committed:
    """Return what `read_back` returns. The commit of another upload may have answered a repeat."""
    with suppress(Unavailable):
        if draft.idempotency_key is not None:
            reply = await services.database.find_reply(grant.key, draft.idempotency_key)
            answer = None if reply is None or reply.sha256 != draft.digest.sha256 else reply.answer
            if isinstance(answer, Committed):
                return replace(answer, replayed=answer.asset.blob_key != draft.blob_key)
    return await read_back(services, draft.blob_key, unknown)


async def counted(services: Services, settling: Awaitable[C]) -> C:
    """Settle, and count what was committed, also when the request was cancelled."""
    committed = await settling
    if not committed.replayed:
        services.metrics.stored()
    return committed


async def drop_unneeded(services: Services, committed: Committed) -> None:
    """Delete the blob that no row names any more; should this fail, the sweeper finds it."""
    if committed.unneeded_blob is not None:
        with suppress(Unavailable):
            await services.blobs.delete(committed.unneeded_blob)


async def read_back(services: Services, blob_key: str, unknown: OutcomeUnknown) -> Committed:
    """Return what a commit without an answer stored. Raise `unknown` while the outcome cannot be read."""
    with suppress(Unavailable):
        asset = await services.database.find_commit(blob_key)
        if asset is not None:
            return Committed(asset)
    raise unknown


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the file was sent as. `requested` None is auto."""

    cloud: str
    requested: ResourceType | None
    spec: UploadSpec
    filename: str | None


async def judge(services: Services, wanted: Wanted, payer: Payer, blob_key: str, path: str, digest: Digest) -> Draft:
    """Return the asset to commit; `path` leads to the bytes. Raises Refused if they are not allowed."""
    judge_content(digest, wanted.spec, services.limits.max_bytes(wanted.requested, wanted.spec))
    facts = await inspect(services, path, digest, wanted, payer)
    return draft_of(services, wanted, blob_key, digest, facts)


async def inspect(services: Services, path: str, digest: Digest, wanted: Wanted, payer: Payer) -> MediaFacts:
    """Return what the bytes are. Raises Refused if they are not allowed."""
    facts = await services.inspector.inspect(path, wanted.requested, payer)
    judge_media(facts, digest, wanted.filename, wanted.spec, services.limits)
    return facts


def draft_of(services: Services, wanted: Wanted, blob_key: str, digest: Digest, facts: MediaFacts) -> Draft:
    """Return the asset that bytes become which were judged to be good."""
    spec, filename, ids = wanted.spec, wanted.filename, services.ids
    chance = ids.base36(RANDOM_LENGTH + UNIQUE_SUFFIX_LENGTH)
    public_id = spec.naming.name(facts.kind, filename, chance[:RANDOM_LENGTH], chance[RANDOM_LENGTH:])
    original = split_filename(spec.naming.filename_override or filename or "")[0]
    return Draft(
        name=AssetName(wanted.cloud, facts.kind, spec.type, public_id),
        asset_id=ids.dated_hex(),
        version_id=ids.hex(32),
        blob_key=blob_key,
        digest=digest,
        facts=facts,
        tags=spec.tags,
        context=spec.context,
        original_filename=None if spec.discard_original_filename else original or None,
        overwrite=spec.overwrite,
        effects=tuple(
            (name, details)
            for name, details_of in services.after_commit.items()
            if (details := details_of(spec)) is not None
        ),
    )


@dataclass(slots=True, eq=False)
class Arrival:
    """What arrived, and what each step of the pipeline found out about it.

    `fields` are in the order of their arrival, those of the query first. `facts` were read from the header of the file.
    """

    request: UploadRequest
    fields: tuple[tuple[str, str], ...]
    filename: str | None
    data: bytes | memoryview
    facts: MediaFacts
    verified: Verified | None = None
    digest: Digest | None = None
    draft: Draft | None = None
    blob_key: str | None = None


class GoesUpstream(Exception):
    """The cloud has an upstream: these steps are not for its uploads."""


class Pipeline:
    """Takes uploads that have arrived. The steps before the commit block, and run in the thread of the database."""

    def __init__(self, services: Services, store: GroupStore) -> None:
        self._services = services
        self._group_store = store
        self._seen: set[bytes] = set()  # the keys of grants that were tried here, the latest of them
        self._goes_upstream: dict[str, bool] = {}  # by cloud, whether its latest upload did

    def is_for(self, cloud: str) -> bool:
        """Return whether an upload should come here: the latest one of its cloud did not go upstream."""
        return not self._goes_upstream.get(cloud)

    def learn(self, cloud: str, outcome: Uploaded | Forwarded) -> None:
        """Remember where an upload went. Only clouds that exist have outcomes: strangers cannot fill the memory."""
        self._goes_upstream[cloud] = isinstance(outcome, Forwarded)

    async def upload(self, arrival: Arrival) -> Uploaded:
        """Let an upload take the steps with its group, and return what it became.

        The event loop hashes: so the thread of the database can go on with another group. Whatever goes wrong before
        the commit spends nothing and leaves nothing behind. An unknown outcome deletes nothing.
        """
        quick = len(arrival.data) <= _QUICKLY_HASHED
        arrival.digest = _digest_of(arrival.data) if quick else await asyncio.to_thread(_digest_of, arrival.data)
        with self._services.metrics.committing():
            committed = await counted(self._services, self._committed(arrival))
        await drop_unneeded(self._services, committed)
        assert arrival.verified is not None
        return Uploaded(committed, arrival.verified.signer)

    async def _committed(self, arrival: Arrival) -> Committed:
        services = self._services
        try:
            return await services.database.commit_arrival(arrival, self.steps, services.limits.refusals_per_grant)
        except OutcomeUnknown as unknown:
            if arrival.verified is None or arrival.draft is None:  # a refusal: only its row in the audit is unknown
                raise
            return await read_back_upload(services, arrival.verified.grant, arrival.draft, unknown)
        except (Refused, Unavailable):
            if arrival.blob_key is not None:
                with suppress(Unavailable):
                    await services.blobs.delete(arrival.blob_key)
            raise

    def steps(self, arrivals: Sequence[Arrival], records: Records) -> Sequence[Candidate | Refusal | Exception]:
        """Return for each arrival what the transaction has to do, or the error that ends it here."""
        outcomes: list[Candidate | Refusal | Exception | None] = [self._refused(each, records) for each in arrivals]
        good = [arrival for arrival, refused in zip(arrivals, outcomes, strict=True) if refused is None]
        failed = self._store(good) if good else None
        return [
            refused or failed or self._candidate(arrival) for arrival, refused in zip(arrivals, outcomes, strict=True)
        ]

    def _refused(self, arrival: Arrival, records: Records) -> Refusal | Exception | None:
        """Return what ends this upload alone, also if a defect does. A database that fails ends the group."""
        try:
            self._verify(arrival, records)
            refusal = self._spent(arrival, records)
            if refusal is None:
                self._judge(arrival)
            return refusal
        except DatabaseUnavailable:
            raise
        except Exception as error:
            return error

    def _verify(self, arrival: Arrival, records: Records) -> None:
        request, params = arrival.request, collect_known(arrival.fields)
        key = find_key_in(records, request.cloud, params)
        if key.upstream is not None:
            raise GoesUpstream
        verified = verified_by(self._services.limits, key, params)
        check_route(params, request.cloud, request.requested)
        check_grant_fresh(self._services, verified)
        check_origin(verified.spec, request.origin)
        arrival.verified = verified

    def _spent(self, arrival: Arrival, records: Records) -> Refusal | None:
        """The refusal of a spent signature, before its bytes are stored. The commit decides again.

        Only a grant that was tried here before is looked up: mostly a grant is new, and the look-up finds nothing. With
        an Idempotency-Key only the commit decides: it may have an answer for a repeat.
        """
        assert arrival.verified is not None
        if arrival.request.idempotency_key is not None:
            return None
        grant = arrival.verified.grant
        if not self._was_tried(grant.key):
            return None
        record = records.find_grant(grant.key)
        error = record and refusal_of(record, grant.max_uses)
        return Refusal(grant, arrival.request.caller, error) if error else None

    def _was_tried(self, key: bytes) -> bool:
        tried = key in self._seen
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen.add(key)
        return tried

    def _judge(self, arrival: Arrival) -> None:
        """Make the draft, which names no bytes yet: all that may be refused is refused before bytes are stored."""
        assert arrival.verified is not None and arrival.digest is not None
        request, limits, spec = arrival.request, self._services.limits, arrival.verified.spec
        judge_content(arrival.digest, spec, limits.max_bytes(request.requested, spec))
        judge_media(arrival.facts, arrival.digest, arrival.filename, spec, limits)
        wanted = Wanted(request.cloud, request.requested, spec, arrival.filename)
        arrival.draft = draft_of(self._services, wanted, "", arrival.digest, arrival.facts)

    def _store(self, arrivals: Sequence[Arrival]) -> UponceError | None:
        """Make the bytes of all durable, with one sync. An error is the error of all."""
        try:
            keys = self._group_store.put_group([_body_of(each) for each in arrivals])
        except UponceError as error:
            return error
        for arrival, key in zip(arrivals, keys, strict=True):
            arrival.blob_key = key
        return None

    def _candidate(self, arrival: Arrival) -> Candidate:
        assert arrival.verified is not None and arrival.draft is not None and arrival.blob_key is not None
        request = arrival.request
        arrival.draft = replace(arrival.draft, blob_key=arrival.blob_key, idempotency_key=request.idempotency_key)
        return Candidate(arrival.verified.grant, arrival.draft, request.caller)


def _body_of(arrival: Arrival) -> Body:
    assert arrival.digest is not None
    return arrival.data, arrival.digest


def _digest_of(data: bytes | memoryview) -> Digest:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Digest(len(data), md5, hashlib.sha256(data).hexdigest())
