"""A launcher of `uponce` that deletes the bytes of an upload when it is unknown whether it was committed."""

from proof.faults.unknown_as_failure import arrival_or_discard, commit_or_discard
from uponce.app.uploading import pipeline, streamed
from uponce.cli import main

# At import, not under the guard: worker processes import this file and never run it.
streamed.commit = commit_or_discard
pipeline.Pipeline._committed = arrival_or_discard  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
