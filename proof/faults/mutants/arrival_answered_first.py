"""`one_arrival` that answers as soon as its bytes are stored, and commits after that."""

import sys
from collections.abc import Sequence
from typing import Any

from proof.faults import one_arrival, one_upload
from uponce.app.ports import Candidate, Records
from uponce.app.uploading.pipeline import Arrival, Pipeline

_steps = Pipeline.steps


def steps_then_answer(self: Pipeline, arrivals: Sequence[Arrival], records: Records) -> Sequence[Any]:
    made = _steps(self, arrivals, records)
    for candidate in made:
        assert isinstance(candidate, Candidate)
        one_upload.acknowledge(candidate.draft.asset.asset_id)
    return made


Pipeline.steps = steps_then_answer  # type: ignore[method-assign]

if __name__ == "__main__":
    one_upload.send = one_arrival.send
    one_upload.main(*sys.argv[1:])
