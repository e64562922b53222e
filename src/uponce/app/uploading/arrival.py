"""An upload whose fields and bytes have all arrived, in memory."""

from dataclasses import dataclass

from uponce.app.authorise import Verified
from uponce.app.intake import UploadRequest
from uponce.app.ports import Candidate
from uponce.core.values import Digest, MediaFacts


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
    blob_key: str | None = None
    candidate: Candidate | None = None

    @property
    def cloud(self) -> str:
        return self.request.cloud

    @property
    def api_key(self) -> str:
        """The API key that the fields name, verified or not."""
        return next((value for name, value in self.fields if name == "api_key"), "")
