"""The steps of an upload that has arrived in memory: verify → refuse a spent one → hash → judge → store → commit.

A group of uploads takes the steps together, in the thread of the database: one sync makes the bytes of all durable, one
transaction commits all. Each upload succeeds or fails on its own, and none is answered before its group is durable.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from uponce.app.authorise import check_grant_fresh, check_origin, find_key_in, verified_by
from uponce.app.judge import Wanted, draft_of
from uponce.app.ports import Body, Candidate, Committed, GroupStore, Records, Refusal
from uponce.app.services import Services
from uponce.app.upload import Uploaded, drop_unneeded, read_back_upload
from uponce.app.uploading.arrival import Arrival
from uponce.core.errors import OutcomeUnknown, Refused, Unavailable, UponceError
from uponce.core.media_types import stored_type
from uponce.core.parameters import check_route, collect_known
from uponce.core.policy import judge_content, judge_media
from uponce.core.refusals import refusal_of
from uponce.core.values import Digest


class Pipeline:
    """Takes uploads that have arrived. The steps before the commit block, and run in the thread of the database."""

    def __init__(self, services: Services, store: GroupStore) -> None:
        self._services = services
        self._group_store = store

    async def upload(self, arrival: Arrival) -> Uploaded:
        """Let an upload take the steps with its group, and return what it became.

        Whatever goes wrong before the commit spends nothing and leaves nothing behind. An unknown outcome deletes
        nothing.
        """
        with self._services.metrics.committing():
            committed = await self._committed(arrival)
        if not committed.replayed:
            self._services.metrics.stored()
        await drop_unneeded(self._services, committed)
        assert arrival.verified is not None
        return Uploaded(committed, arrival.verified.signer)

    async def _committed(self, arrival: Arrival) -> Committed:
        services = self._services
        try:
            return await services.database.commit_arrival(arrival, self.steps, services.limits.refusals_per_grant)
        except OutcomeUnknown as unknown:
            assert arrival.candidate is not None
            return await read_back_upload(services, arrival.candidate.grant, arrival.candidate.draft, unknown)
        except (Refused, Unavailable):
            if arrival.blob_key is not None:
                with suppress(Unavailable):
                    await services.blobs.delete(arrival.blob_key)
            raise

    def steps(self, arrivals: Sequence[Arrival], records: Records) -> Sequence[Candidate | Refusal | UponceError]:
        """Return for each arrival what the transaction has to do, or the error that ends it here."""
        outcomes: list[Candidate | Refusal | UponceError | None] = [self._refused(each, records) for each in arrivals]
        good = [arrival for arrival, refused in zip(arrivals, outcomes, strict=True) if refused is None]
        failed = self._store(good) if good else None
        return [
            refused or failed or self._candidate(arrival) for arrival, refused in zip(arrivals, outcomes, strict=True)
        ]

    def _refused(self, arrival: Arrival, records: Records) -> Refusal | UponceError | None:
        try:
            self._verify(arrival, records)
            refusal = self._spent(arrival, records)
            if refusal is not None:
                return refusal
            arrival.digest = _digest_of(arrival.data)
            self._judge(arrival)
        except UponceError as error:
            return error
        return None

    def _verify(self, arrival: Arrival, records: Records) -> None:
        request, params = arrival.request, collect_known(arrival.fields)
        key = find_key_in(records, request.cloud, params)
        verified = verified_by(self._services.limits, key, params)
        check_route(params, request.cloud, request.requested)
        check_grant_fresh(self._services, verified)
        check_origin(verified.spec, request.origin)
        arrival.verified = verified

    def _spent(self, arrival: Arrival, records: Records) -> Refusal | None:
        """The refusal of a spent signature, before its bytes are hashed and stored. The commit decides again.

        With an Idempotency-Key only the commit decides: it may have an answer for a repeat.
        """
        assert arrival.verified is not None
        if arrival.request.idempotency_key is not None:
            return None
        grant = arrival.verified.grant
        record = records.find_grant(grant.key)
        error = record and refusal_of(record, grant.max_uses)
        return Refusal(grant, arrival.request.caller, error) if error else None

    def _judge(self, arrival: Arrival) -> None:
        assert arrival.verified is not None and arrival.digest is not None
        limits, spec = self._services.limits, arrival.verified.spec
        judge_content(arrival.digest, spec, limits.max_bytes(arrival.request.requested, spec))
        judge_media(arrival.facts, arrival.digest, arrival.filename, spec, limits)

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
        assert arrival.verified is not None and arrival.digest is not None and arrival.blob_key is not None
        request, verified = arrival.request, arrival.verified
        wanted = Wanted(request.cloud, request.requested, verified.spec, arrival.filename)
        draft = draft_of(self._services, wanted, arrival.blob_key, arrival.digest, arrival.facts)
        if request.idempotency_key is not None:
            draft = replace(draft, idempotency_key=request.idempotency_key)
        arrival.candidate = Candidate(verified.grant, draft, request.caller)
        return arrival.candidate


def _body_of(arrival: Arrival) -> Body:
    assert arrival.digest is not None
    return arrival.data, arrival.digest, stored_type(arrival.facts)


def _digest_of(data: bytes | memoryview) -> Digest:
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return Digest(len(data), md5, hashlib.sha256(data).hexdigest())
