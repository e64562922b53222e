"""`one_upload` whose bytes have arrived in memory: it takes its steps as a group of one.

python -m proof.faults.one_arrival DATA_DIR FIELDS_AS_JSON [IDEMPOTENCY_KEY]
"""

import sys

from proof.faults import one_upload
from uponce.app.authorise import UploadRequest
from uponce.app.ports import Committed
from uponce.app.services import Services
from uponce.app.uploading.pipeline import Arrival, Pipeline
from uponce.core.values import Caller, MediaFacts, ResourceType


async def send(
    services: Services, cloud: str, fields: dict[str, str], data: bytes, key: str | None = None
) -> Committed:
    """Do the same as `one_upload.send`, through the pipeline."""
    request = UploadRequest(cloud, ResourceType.RAW, (), None, Caller("192.0.2.1", "request-1"), key)
    arrival = Arrival(request, tuple(fields.items()), "cat.bin", data, MediaFacts(ResourceType.RAW))
    return (await Pipeline(services).upload(arrival)).committed


if __name__ == "__main__":
    one_upload.send = send
    one_upload.main(*sys.argv[1:])
