"""An upload with the mistake that everybody makes: an error is a failure, so clean up."""

from uponce.app.authorise import Admitted
from uponce.app.ports import Committed, Draft, Publishable
from uponce.app.services import Services
from uponce.app.uploading import pipeline, streamed
from uponce.core.errors import OutcomeUnknown

_commit = streamed.commit


async def commit_or_discard(services: Services, admitted: Admitted, draft: Draft, blob: Publishable) -> Committed:
    """In place of `uponce.app.uploading.streamed.commit`."""
    try:
        return await _commit(services, admitted, draft, blob)
    except OutcomeUnknown:
        await blob.discard()
        raise


_committed = pipeline.Pipeline._committed


async def arrival_or_discard(self: pipeline.Pipeline, arrival: pipeline.Arrival) -> Committed:
    """In place of `uponce.app.uploading.pipeline.Pipeline._committed`."""
    try:
        return await _committed(self, arrival)
    except OutcomeUnknown:
        assert arrival.blob_key is not None
        await self._services.blobs.delete(arrival.blob_key)
        raise
