"""Files that promise more than they hold, or are not what they look like."""

import io
import random
import struct
import zlib
from typing import Any

import av


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, *, depth: int = 1, colour: int = 0, extra: bytes = b"", rows: int | None = None
) -> bytes:
    """A black PNG; with `rows` fewer than the header promises."""
    row = bytes(1 + (width * depth * (3 if colour == 2 else 1) + 7) // 8)
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_text_bomb(size: int) -> bytes:
    """A one-pixel PNG whose comment unpacks to `size` bytes."""
    return png(1, 1, extra=png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(size), 9)))


def gif(width: int, height: int, frames: int = 1) -> bytes:
    """A logical screen of any size with frames of one pixel each."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\x04\x01\0\0\0" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return screen + frame * frames + b"\x3b"


def tag(size: int) -> bytes:
    """An ID3 tag with so many bytes of padding."""
    return b"ID3\4\0\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)


def noise(seed: int) -> bytes:
    """A FLAC. Noise has whatever the decoder of another format looks for."""
    buffer, chance = io.BytesIO(), random.Random(seed)
    with av.open(buffer, "w", format="flac") as sound:
        stream = sound.add_stream("flac", rate=44_100, layout="stereo")
        for at in range(10):
            frame = av.AudioFrame(format="s16", layout="stereo", samples=4096)
            frame.planes[0].update(chance.randbytes(4 * 4096))
            frame.sample_rate, frame.pts = 44_100, 4096 * at
            sound.mux(stream.encode(frame))
        sound.mux(stream.encode(None))
    return buffer.getvalue()


def huge_film(muxer: str, codec: str, width: int = 8000, height: int = 5120, *, behind: bool = False) -> bytes:
    """One black frame. With `behind` a small film comes first."""
    buffer = io.BytesIO()
    options = {"threads": "1"} | ({"preset": "ultrafast"} if codec == "libx264" else {})
    film: Any
    with av.open(buffer, "w", format=muxer) as film:
        sizes = [(64, 48)] * behind + [(width, height)]
        how = {"rate": 25, "pix_fmt": "yuv420p", "options": options}
        streams = [film.add_stream(codec, width=wide, height=high, **how) for wide, high in sizes]
        for stream, size in zip(streams, sizes, strict=True):
            film.mux([*stream.encode(av.VideoFrame(*size, "yuv420p")), *stream.encode(None)])
    return buffer.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'

NOT_MEDIA = {
    "html": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
    "svg-in-xhtml": b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">' + SVG + b"</html>",
    "text-of-a-bmw": b"BMW builds cars, and this is a text about them.\n",
    "zip": b"PK\x03\x04\x14\0\0\0\0\0" + bytes(20),
    "m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://127.0.0.1/</BaseURL></MPD>',
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    "mat-hdf5": b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(508) + b"\0\2IM" + b"\x89HDF\r\n\x1a\n" + bytes(64),
    "mvg": b"push graphic-context\nimage over 0,0 0,0 'https://127.0.0.1/x'\npop graphic-context\n",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "exe": b"MZ\x90\0" + bytes(60) + b"PE\0\0",
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "psd": b"8BPS\0\1" + bytes(64),
    "text": b"nothing but words\n",
    "one-byte": b"\xff",
}
