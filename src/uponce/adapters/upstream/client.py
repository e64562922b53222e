"""The API of an upstream: addresses, credentials and forms. exchange.py sends them."""

import base64
import secrets
from collections import Counter
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from uponce import __version__
from uponce.adapters.upstream import Times
from uponce.adapters.upstream.bodies import UpstreamBody, multipart
from uponce.app.ports.relaying import AdminCall, Query, Sign, UpstreamCall, UpstreamReply
from uponce.core.errors import InvalidParameter, UpstreamUnavailable
from uponce.core.upstream import signed
from uponce.core.values import Upstream

if TYPE_CHECKING:
    from uponce.adapters.upstream.exchange import Exchanges


class HttpUpstream:
    """An UpstreamClient. `connections` is how many uploads it sends at once to each account.

    It makes as many other calls at once, so slow uploads delay no look-up.
    """

    def __init__(self, times: Times | None = None, connections: int = 1000) -> None:
        self._times = times or Times()
        self._connections = connections
        self._running = Counter[tuple[str, str]]()  # by kind and account
        self._opened: Exchanges | None = None

    async def close(self) -> None:
        """End all requests and connections."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened.close()

    def _exchanges(self) -> "Exchanges":
        if self._opened is None:
            # aiohttp takes 10 MiB and 80 ms, so servers without a relay do not load it.
            from uponce.adapters.upstream.exchange import Exchanges

            self._opened = Exchanges(self._times)
        return self._opened

    @contextmanager
    def _place(self, upstream: Upstream, kind: str, *, goes_on: bool = False) -> Iterator["Exchanges"]:
        """Count a request. Raise UpstreamUnavailable at once if no more are allowed now, unless it `goes_on`."""
        most, place = self._connections, (kind, upstream.account)
        if self._running[place] >= most and not goes_on:
            raise UpstreamUnavailable(
                f"{most} {kind} are being passed on to this account, and UPONCE_RELAY_CONNECTIONS allows {most} at a "
                "time. Nothing was done. Send the request again in 5 seconds."
            )
        self._running[place] += 1
        try:
            yield self._exchanges()
        finally:
            self._running[place] -= 1

    async def upload(
        self, upstream: Upstream, call: UpstreamCall, file: AsyncIterable[bytes | bytearray], sign: Sign | None
    ) -> UpstreamReply:
        """Send one upload; see the port. Once called, `sign` runs to its end, also if this call is cancelled."""
        chunk = {"Content-Range": call.span, "X-Unique-Upload-Id": call.upload_id}
        headers = _AGENT | {name: value for name, value in chunk.items() if value is not None}
        example = {} if sign is None else signed(upstream, call.fields, _ANY_TIME)
        body = multipart(call, file, sign, secrets.token_hex(16), example)
        # No other upload takes a later chunk's place.
        goes_on = call.span is not None and not call.span.startswith("bytes 0-")
        with self._place(upstream, "uploads", goes_on=goes_on) as exchanges:
            return await exchanges.send("POST", _url(upstream, f"{call.kind}/upload"), headers, body)

    async def get(self, upstream: Upstream, path: str, query: Query = ()) -> UpstreamReply:
        """Return the answer to a GET with HTTP Basic; see the port."""
        with self._place(upstream, _CALLS) as exchanges:
            return await exchanges.get(_url(upstream, path, query), _AGENT | _basic(upstream), self._times.look)

    async def call(self, upstream: Upstream, path: str, asked: AdminCall) -> UpstreamReply:
        """Return the answer to a call with HTTP Basic; see the port."""
        url, headers = _url(upstream, path, asked.query), _AGENT | _basic(upstream)
        with self._place(upstream, _CALLS) as exchanges:
            if asked.method == "GET":
                typed = {"Content-Type": asked.content_type} if asked.body else {}
                seconds = self._times.connect + self._times.reply
                return await exchanges.get(url, headers | typed, seconds, asked.body)
            body = UpstreamBody(asked.content_type, asked.body, size=len(asked.body))
            return await exchanges.send(asked.method, url, headers, body)

    async def post(self, upstream: Upstream, path: str, fields: Query) -> UpstreamReply:
        """Return the answer to a signed form; see the port."""
        encoded = urlencode(fields).encode()
        form = UpstreamBody("application/x-www-form-urlencoded", encoded, size=len(encoded))
        with self._place(upstream, _CALLS) as exchanges:
            return await exchanges.send("POST", _url(upstream, path), dict(_AGENT), form)


_CALLS = "calls that are no uploads"
_ANY_TIME = 1_000_000_000  # has as many digits as the times of signatures
_AGENT = {"User-Agent": f"uponce/{__version__}"}


def _basic(upstream: Upstream) -> dict[str, str]:
    credentials = base64.b64encode(f"{upstream.api_key}:{upstream.secret}".encode()).decode()
    return {"Authorization": f"Basic {credentials}"}


def _url(upstream: Upstream, path: str, query: Query = ()) -> str:
    """Return the address. Raise InvalidParameter if it would leave the cloud, UpstreamUnavailable without a secret."""
    if not upstream.secret:
        raise UpstreamUnavailable(
            "This cloud passes uploads on, and its account is not set up. Send the request again later.",
            detail=f"the API secret of account {upstream.cloud} is lost: `uponce clouds relay NAME URL` sets it again",
        )
    if any(segment in (".", "..") for segment in path.split("/")):
        raise InvalidParameter("A segment of the path is '.' or '..'. Send the path without it.")
    address = f"{upstream.prefix}/v1_1/{quote(upstream.cloud, safe='')}/{quote(path)}"
    return address + (f"?{urlencode(query)}" if query else "")
