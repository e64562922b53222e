"""`uponce` whose sweeps look at each file that is older than the pause between two: a server spares more of them."""

import os
from typing import Any

import uponce.lifespan
from uponce.app.sweep import Swept, sweep_blobs
from uponce.cli import main

GRACE_SECONDS = float(os.environ["UPONCE_SWEEP_SECONDS"])


async def _eagerly(*args: Any, grace_seconds: float, **named: Any) -> Swept:
    return await sweep_blobs(*args, grace_seconds=min(grace_seconds, GRACE_SECONDS), **named)


uponce.lifespan.sweep_blobs = _eagerly  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
