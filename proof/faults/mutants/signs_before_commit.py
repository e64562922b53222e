"""A launcher of `uponce` whose relay signs for its upstream first, and notes the upload when it is there."""

from collections.abc import AsyncIterator, Mapping

from uponce.app.ports import Sign, UpstreamCall, UpstreamReply
from uponce.app.relaying.chunks import Data
from uponce.app.relaying.relay import Relaying
from uponce.cli import main
from uponce.core.upstream import signed

_sign = Relaying._sign


async def sign_first(self: Relaying) -> Mapping[str, str]:
    return signed(self._upstream, self._target.fields, int(self._services.clock.now()))


async def send_then_commit(self: Relaying, call: UpstreamCall, file: AsyncIterator[Data], sign: Sign) -> UpstreamReply:
    reply = await _upload(self, call, file, sign)
    await _sign(self)
    return reply


# At import, not under the guard: worker processes import this file and never run it.
_upload = Relaying._upload
Relaying._sign = sign_first  # type: ignore[method-assign]
Relaying._upload = send_then_commit  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
