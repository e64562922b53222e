"""A launcher of `uponce` as proof/faults/stopping.py, whose signature has the time at which the process wakes."""

from collections.abc import Mapping

from proof.faults.stopping import sign_and_stop
from uponce.app.relaying.relay import Relaying
from uponce.cli import main
from uponce.core.relaying import trailer_timestamp
from uponce.core.upstream import signed


async def sign_when_awake(self: Relaying) -> Mapping[str, str]:
    await sign_and_stop(self)
    services, upstream = self._services, self._upstream
    stamp = trailer_timestamp(int(services.clock.now()), upstream.window, services.limits.relay_fence)
    return signed(upstream, self._target.fields, stamp)


# At import, not under the guard: worker processes import this file and never run it.
Relaying._sign = sign_when_awake  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
