"""The steps of an upload, up to the commit. The commit is the only arbiter, and `settle` is where every upload ends.

`Pipeline` takes uploads that have arrived whole, in memory: hash → verify → judge → store → commit. A group of them
takes the steps after the hash together, in the thread of the database: one sync makes the bytes of all durable, one
transaction commits all. Each upload succeeds or fails on its own, and no client gets an answer before its group is
durable. `streamed` takes uploads that go alone: those whose bytes stream in, and small ones to a bucket. `completion`
takes those in several requests.
"""

import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias, TypeVar

from uponce.app.authorise import (
    Admitted,
    UploadRequest,
    Verified,
    check_grant_fresh,
    check_origin,
    check_route,
    check_scripted,
    find_key_in,
    verified_by,
)
from uponce.app.ports import Body, Candidate, Committed, Draft, Records, Refusal
from uponce.app.services import Services
from uponce.app.threads import in_a_thread
from uponce.app.unbroken import later
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, Refused, Unavailable, UponceError
from uponce.core.naming import RANDOM_LENGTH, UNIQUE_SUFFIX_LENGTH, original_filename
from uponce.core.policy import judge_content, judge_media
from uponce.core.refusals import refusal_of
from uponce.core.relaying import Forwarded, signed_by
from uponce.core.signature import Signer, collect_known
from uponce.core.values import Asset, AssetName, Digest, Grant, GrantRecord, MediaFacts

_QUICKLY_HASHED = 1024 * 1024  # takes 1.5 ms; a setting may let larger bodies come here
_MOST_SEEN = 20_000  # 2 MB, and 14 MB if all of them are used up

C = TypeVar("C", bound=Committed | Forwarded)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The result of an upload: the asset, how it was stored, and the signer of the answer."""

    committed: Committed
    signer: Signer

    @property
    def replayed(self) -> bool:
        return self.committed.replayed


def answered(outcome: Committed | Forwarded, signer: Signer) -> Uploaded | Forwarded:
    """Return what to answer with. The signer's key signs the answer, also that of an upstream."""
    return signed_by(signer, outcome) if isinstance(outcome, Forwarded) else Uploaded(outcome, signer)


async def settle(
    commit: Callable[[], Awaitable[Committed]],
    find: Callable[[OutcomeUnknown], Awaitable[Committed]],
    undo: Callable[[], Awaitable[None]],
) -> Committed:
    """Return what the commit stored. Every upload is settled here, whatever protocol brought it.

    `undo` deletes its bytes after a definite refusal. An unknown outcome deletes nothing: `find` reads the asset back.
    If that fails too, the sweeper deletes the bytes later, unless the commit happened.
    """
    try:
        return await commit()
    except OutcomeUnknown as unknown:
        return await find(unknown)
    except (Refused, Unavailable):
        await undo()
        raise


async def read_back_upload(services: Services, grant: Grant, draft: Draft, unknown: OutcomeUnknown) -> Committed:
    """Return what a commit without an answer stored. Raise `unknown` while the outcome cannot be confirmed.

    If the commit of another upload with the same Idempotency-Key has stored an answer, return that answer.
    """
    try:
        if draft.idempotency_key is not None:
            reply = await services.database.confirm_reply(grant.key, draft.idempotency_key)
            answer = None if reply is None or reply.sha256 != draft.asset.digest.sha256 else reply.answer
            if isinstance(answer, Committed):
                is_own = draft.asset.blob_key in (answer.asset.blob_key, answer.unneeded_blob)
                return answer if is_own else replace(answer, replayed=True, unneeded_blob=None)
    except OutcomeUnknown:  # the standby is away, also for a second question
        raise unknown from None
    except Unavailable:
        pass
    with suppress(Unavailable):
        asset = await services.database.confirm_commit(draft.asset.blob_key)
        if asset is not None:
            return Committed(asset)
    raise unknown


async def followed_up(services: Services, committing: Callable[[], Awaitable[C]]) -> C:
    """Return what the commit returns, after counting it and deleting the blob that it made unneeded."""
    committed = await committing()
    if not committed.replayed:
        services.metrics.stored()
    if isinstance(committed, Committed) and committed.unneeded_blob is not None:
        await delete_unneeded(services, services.blobs.delete(committed.unneeded_blob))
    return committed


async def delete_unneeded(services: Services, deletion: Coroutine[Any, Any, None]) -> None:
    """Delete bytes that no row names any more. If this fails, the sweeper deletes them.

    The client of an upload waits for a disk, which is quick, and not for another machine.
    """
    if services.blobs.is_remote:
        await later(deletion)
        return
    with suppress(Unavailable):
        await deletion


async def examine(services: Services, admitted: Admitted, path: str | None, digest: Digest) -> MediaFacts | None:
    """Return what the bytes are. Raise a Refused if they are not allowed.

    Return None for an upstream, which inspects them itself, unless this server inspects them too. `path` leads to the
    bytes. It is None if they are on their way to the upstream.
    """
    judge_content(digest, admitted.requested, admitted.spec, services.limits)
    if path is None or (admitted.upstream is not None and not services.inspects):
        return None
    facts = await services.inspector.inspect(path, admitted.requested, admitted.payer)
    judge_media(facts, digest, admitted.filename, admitted.spec, services.limits)
    return facts


def draft_of(services: Services, admitted: Admitted, blob_key: str, digest: Digest, facts: MediaFacts) -> Draft:
    """Return the asset to commit, for good bytes. Raise StorageUnavailable if another database has the storage."""
    services.ownership.check()
    spec, filename, ids = admitted.spec, admitted.filename, services.ids
    chance = ids.base36(RANDOM_LENGTH + UNIQUE_SUFFIX_LENGTH)
    public_id = spec.naming.name(facts.kind, filename, chance[:RANDOM_LENGTH], chance[RANDOM_LENGTH:])
    original = original_filename(spec.naming.filename_override or filename or "")
    asset = Asset(
        name=AssetName(admitted.grant.cloud, facts.kind, spec.type, public_id),
        asset_id=ids.dated_hex(),
        version=0,
        version_id=ids.hex(32),
        created_at=0,
        blob_key=blob_key,
        digest=digest,
        facts=facts,
        tags=spec.tags,
        context=spec.context,
        original_filename=None if spec.discard_original_filename else original,
    )
    effects = (effect_of(spec, admitted.grant.cloud) for effect_of in services.after_commit)
    left = tuple(effect for effect in effects if effect is not None)
    return Draft(asset, spec.overwrite, admitted.idempotency_key, left)


@dataclass(slots=True, eq=False)
class Arrival:
    """An upload that has arrived, and what each step of the pipeline found out about it.

    `fields` are in the order of their arrival, those of the query first. `params` are the same, collected. `facts` were
    read from the header of the file.
    """

    request: UploadRequest
    fields: tuple[tuple[str, str], ...]
    filename: str | None
    data: bytes | memoryview
    facts: MediaFacts
    params: Mapping[str, str] = field(default_factory=dict)
    verified: Verified | None = None
    digest: Digest | None = None
    draft: Draft | None = None
    blob_key: str | None = None


class MustStream(Exception):
    """The upload is not for this way: its cloud has an upstream, or too many bodies wait in memory."""


class Pipeline:
    """Takes uploads that have arrived. Each step between hash and commit blocks, and runs in the database's thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        # The grants that were tried here last, by their keys. With a record: nothing can be used of it any more.
        self._seen: dict[bytes, GrantRecord | None] = {}
        self._goes_upstream: dict[str, bool] = {}  # by cloud: whether its latest upload went upstream

    def is_for(self, cloud: str) -> bool:
        """Return whether a small upload is taken whole: the store can, and the latest one of its cloud stayed here."""
        services = self._services
        takes = services.put_group is not None or services.hold_small is not None
        return takes and not self._goes_upstream.get(cloud)

    def learn(self, cloud: str, outcome: Uploaded | Forwarded) -> None:
        """Remember where an upload went. Only clouds that exist have outcomes, so strangers cannot fill the memory."""
        self._goes_upstream[cloud] = isinstance(outcome, Forwarded)

    async def upload(self, arrival: Arrival) -> Uploaded:
        """Let an upload take the steps with its group. Return what it stored.

        The event loop hashes, so the thread of the database can go on with another group. A failure before the commit
        spends nothing and leaves nothing. An unknown outcome deletes nothing.
        """
        arrival.digest = await digest_of(arrival)
        committed = await followed_up(self._services, partial(self._committed, arrival))
        assert arrival.verified is not None
        return Uploaded(committed, arrival.verified.signer)

    async def _committed(self, arrival: Arrival) -> Committed:
        services = self._services

        async def commit() -> Committed:
            with services.metrics.committing():
                return await services.database.commit_arrival(arrival, self.steps, services.limits.refusals_per_grant)

        async def find(unknown: OutcomeUnknown) -> Committed:
            if arrival.verified is None or arrival.draft is None:  # a refusal: only its row in the audit is unknown
                raise unknown
            return await read_back_upload(services, arrival.verified.grant, arrival.draft, unknown)

        async def undo() -> None:
            if arrival.blob_key is not None:
                await delete_unneeded(services, services.blobs.delete(arrival.blob_key))

        return await settle(commit, find, undo)

    def steps(self, arrivals: Sequence[Arrival], records: Records) -> Sequence[Candidate | Refusal | Exception]:
        """Return for each arrival what the transaction must do, or the error that ends the upload here."""
        outcomes: list[Candidate | Refusal | Exception | None]
        outcomes = [self._refused(each, records, Pipeline.collect) for each in arrivals]
        # Each arrival names one API key at most: what `verify` looks up, so it finds an answer here.
        named = [(each.params["api_key"], each.request.cloud) for each in arrivals if "api_key" in each.params]
        records.load(named)
        outcomes = [
            refused or self._refused(arrival, records, *STEPS)
            for arrival, refused in zip(arrivals, outcomes, strict=True)
        ]
        good = [arrival for arrival, refused in zip(arrivals, outcomes, strict=True) if refused is None]
        failed = self._store(good) if good else None
        return [
            refused or failed or self._candidate(arrival) for arrival, refused in zip(arrivals, outcomes, strict=True)
        ]

    def _refused(self, arrival: Arrival, records: Records, *steps: "Step") -> Refusal | Exception | None:
        """Return what ends this upload alone, even a defect, or None. Raise if the database fails."""
        try:
            for step in steps:
                if (refusal := step(self, arrival, records)) is not None:
                    return refusal
        except DatabaseUnavailable:
            raise
        except Exception as error:
            return error
        return None

    def collect(self, arrival: Arrival, _: Records) -> None:
        arrival.params = collect_known(arrival.fields)

    def verify(self, arrival: Arrival, records: Records) -> None:
        request, params = arrival.request, arrival.params
        key = find_key_in(records, request.cloud, params)
        if key.upstream is not None:
            raise MustStream
        verified = verified_by(self._services.limits, key, params)
        check_route(params, request.cloud, request.requested)
        check_grant_fresh(self._services, verified)
        check_origin(verified.spec, request.origin)
        check_scripted(verified.spec, request)
        arrival.verified = verified

    def refuse_spent(self, arrival: Arrival, records: Records) -> Refusal | None:
        """Return the refusal of a spent signature, before its bytes are stored. The commit decides again.

        Only a grant that was tried here before is looked up: most grants are new, and a look-up would find nothing.
        With an answer under its Idempotency-Key only the commit decides: it compares the bytes of a repeat. A use that
        the record shows was committed together with its answer, so the answer is looked up after the record.
        """
        assert arrival.verified is not None
        grant, named = arrival.verified.grant, arrival.request.idempotency_key
        if not self._was_tried(grant.key):
            return None
        record = self._seen.get(grant.key) or records.find_grant(grant.key)
        error = refusal_of(record, grant.max_uses) if record else None
        if error is None:
            return None
        self._seen[grant.key] = record
        if named is not None and records.find_reply(grant.key, named) is not None:
            return None
        return Refusal(grant, arrival.request.caller, error)

    def _was_tried(self, key: bytes) -> bool:
        tried = key in self._seen
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen.setdefault(key)
        return tried

    def judge(self, arrival: Arrival, _: Records) -> None:
        """Make the draft, which names no blob yet. Every refusal comes before bytes are stored."""
        assert arrival.verified is not None and arrival.digest is not None
        admitted = Admitted.of(arrival.request, arrival.verified, arrival.filename)
        judge_content(arrival.digest, admitted.requested, admitted.spec, self._services.limits)
        judge_media(arrival.facts, arrival.digest, arrival.filename, admitted.spec, self._services.limits)
        arrival.draft = draft_of(self._services, admitted, "", arrival.digest, arrival.facts)

    def _store(self, arrivals: Sequence[Arrival]) -> UponceError | None:
        """Make the bytes of all durable, with one sync. Return the error, which is then the error of all."""
        put_group = self._services.put_group
        assert put_group is not None
        try:
            keys = put_group([_body_of(each) for each in arrivals])
        except UponceError as error:
            return error
        for arrival, key in zip(arrivals, keys, strict=True):
            arrival.blob_key = key
        return None

    def _candidate(self, arrival: Arrival) -> Candidate:
        assert arrival.verified is not None and arrival.draft is not None and arrival.blob_key is not None
        draft = arrival.draft
        asset = replace(draft.asset, blob_key=arrival.blob_key)
        arrival.draft = Draft(asset, draft.overwrite, draft.idempotency_key, draft.effects)
        return Candidate(arrival.verified.grant, arrival.draft, arrival.request.caller)


Step: TypeAlias = Callable[[Pipeline, Arrival, Records], Refusal | None]

# What each upload of a group goes through alone, before any bytes are stored. A step returns a refusal for the audit,
# or raises what ends this upload.
STEPS: Sequence[Step] = (
    Pipeline.verify,
    Pipeline.refuse_spent,
    Pipeline.judge,
)


def _body_of(arrival: Arrival) -> Body:
    assert arrival.digest is not None
    return arrival.data, arrival.digest


async def digest_of(arrival: Arrival) -> Digest:
    quick = len(arrival.data) <= _QUICKLY_HASHED
    return _digest_of(arrival.data) if quick else await in_a_thread(lambda: _digest_of(arrival.data))


def _digest_of(data: bytes | memoryview) -> Digest:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Digest(len(data), md5, hashlib.sha256(data).hexdigest())
