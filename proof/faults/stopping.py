"""A launcher of `uponce` whose relay process stops itself (SIGSTOP) after the commit, before its signature leaves.

Only an upload with the tag `stop` stops it. It goes on at SIGCONT.
"""

import os
import signal
from collections.abc import Mapping

from uponce.app.relaying.relay import Relaying
from uponce.cli import main

STOP = {"tags": "stop"}

_sign = Relaying._sign


async def sign_and_stop(self: Relaying) -> Mapping[str, str]:
    fields = await _sign(self)
    if self._admitted.params.get("tags") == STOP["tags"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    return fields


# At import, not under the guard: worker processes import this file and never run it.
Relaying._sign = sign_and_stop  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
