"""Bodies of requests to an upstream: forms whose last part may be unknown until the file has been sent."""

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass

from uponce.app.ports.relaying import Sign, UpstreamCall

_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers write names in a part's header


@dataclass(frozen=True, slots=True)
class UpstreamBody:
    """A body in three parts: `head`, then the bytes of `file`, then what `tail` returns.

    `tail` is called after the last byte of the file. `withheld`: only the tail makes the request valid. `size` is that
    of the whole body, None if it is unknown.
    """

    content_type: str
    head: bytes
    file: AsyncIterable[bytes | bytearray] | None = None
    tail: Callable[[], Awaitable[bytes]] | None = None
    withheld: bool = False
    size: int | None = None


def multipart(
    call: UpstreamCall,
    file: AsyncIterable[bytes | bytearray],
    sign: Sign | None,
    boundary: str,
    example: Mapping[str, str],
) -> UpstreamBody:
    """Return a form with the fields, then the file, then the fields that `sign` returns.

    The last ones are as long as those of `example`.
    """

    def end(last: Mapping[str, str]) -> bytes:
        return b"\r\n" + _parts(last, boundary) + f"--{boundary}--\r\n".encode()

    async def tail() -> bytes:
        return end({} if sign is None else await sign())

    start = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
        f'filename="{call.filename.translate(_ESCAPES)}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    )
    head = _parts(call.fields, boundary) + start.encode(errors="replace")
    return UpstreamBody(
        content_type=f"multipart/form-data; boundary={boundary}",
        head=head,
        file=file,
        tail=tail,
        withheld=sign is not None,
        size=None if call.size is None else len(head) + call.size + len(end(example)),
    )


def _parts(fields: Mapping[str, str], boundary: str) -> bytes:
    return "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name.translate(_ESCAPES)}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ).encode()
