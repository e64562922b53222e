"""Small programs of bytes that write files made to cost a decoder time or memory. No randomness: a name is a file."""

import zlib
from collections.abc import Callable

MB = 1_000_000


def _be(number: int, size: int = 4) -> bytes:
    return number.to_bytes(size)


def _le(number: int, size: int = 4) -> bytes:
    return number.to_bytes(size, "little")


# MP4 and MOV: ISO/IEC 14496-12


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return _be(8 + len(data)) + kind + data


FTYP = box(b"ftyp", b"isom", _be(512), b"isomiso2mp41")


def full(kind: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return box(kind, _be(flags), *parts)


def mp4(samples: int, size: int = 1, *, edits: int = 0, offsets: int = 0, chunks: int = 1, tracks: int = 1) -> bytes:
    """`samples` of one `size` in one run, `offsets` of them with a shift, and `edits` that all play the end."""
    entry = box(
        b"jpeg", bytes(6), _be(1, 2), bytes(16), _be(64, 2) * 2, _be(0x480000) * 2, bytes(4), _be(1, 2), bytes(32)
    )
    tables = [
        full(b"stsd", _be(1), entry + _be(24, 2) + b"\xff\xff"),
        full(b"stts", _be(1), _be(samples), _be(1)),
        full(b"stsc", _be(1), _be(1), _be(samples), _be(1)),
        full(b"stsz", _be(size), _be(samples)),
        full(b"stco", _be(chunks), _be(48) * chunks),
    ]
    if offsets:
        tables.append(full(b"ctts", _be(1), _be(offsets), _be(1)))
    edit = (_be(1) + _be(max(samples - 10, 0)) + _be(0x10000)) * edits
    header = full(b"mdhd", bytes(8), _be(1000), _be(1000), bytes(4))
    media = box(b"mdia", header, full(b"hdlr", bytes(4), b"vide", bytes(13)), box(b"minf", box(b"stbl", *tables)))
    track = full(b"tkhd", bytes(8), _be(1), bytes(4), _be(1000), bytes(52), _be(64 << 16) * 2, flags=3)
    trak = box(b"trak", track, box(b"edts", full(b"elst", _be(edits), edit)) if edits else b"", media)
    movie = full(b"mvhd", bytes(8), _be(1000), _be(1000), _be(0x10000), bytes(76), _be(2))
    return FTYP + box(b"moov", movie, trak * tracks) + box(b"mdat", bytes(200))


def fragments(samples: int, count: int = 1) -> bytes:
    """Fragments that promise `samples` each, whose size and length are in the defaults."""
    extends = box(b"mvex", full(b"trex", _be(1), _be(1), _be(1), _be(1), _be(0)))
    start = mp4(0)
    at = start.index(b"moov") - 4
    moov = start[at : at + int.from_bytes(start[at : at + 4])]
    run = box(b"traf", full(b"tfhd", _be(1), flags=0x20000), full(b"trun", _be(samples)))
    moof = box(b"moof", full(b"mfhd", _be(1)), run) + box(b"mdat", bytes(8))
    return FTYP + _be(len(moov) + len(extends)) + moov[4:] + extends + moof * count


def nested(kind: bytes, depth: int) -> bytes:
    """Boxes in boxes."""
    return b"".join(_be(8 * (depth - at)) + kind for at in range(depth))


# Pictures


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return _be(len(body)) + kind + body + _be(zlib.crc32(kind + body))


def png(width: int = 1, height: int = 1, extra: bytes = b"", pixels: bytes = bytes(4)) -> bytes:
    header = png_chunk(b"IHDR", _be(width) + _be(height) + b"\x08\2\0\0\0")
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", zlib.compress(pixels)) + png_chunk(b"IEND", b"")


def gif(extra: bytes, frames: int = 1) -> bytes:
    frame = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x4c\1\0"
    return b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + extra + frame * frames + b"\x3b"


def _entry(tag: int, kind: int, count: int, value: int) -> bytes:
    return _le(tag, 2) + _le(kind, 2) + _le(count) + _le(value)


_PLAIN = ((256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1))


def tiff_directories(count: int, *, loop: bool = False) -> bytes:
    out = bytearray(b"II*\0" + _le(8))
    for left in range(count - 1, -1, -1):
        after = len(out) + 2 + 12 * len(_PLAIN) + 4
        out += _le(len(_PLAIN), 2) + b"".join(_entry(*fields) for fields in _PLAIN)
        out += _le(after if left else 8 if loop else 0)
    return bytes(out)


def tiff_tags(unknown: int) -> bytes:
    """One directory with so many tags that no reader knows."""
    tags = b"".join(_entry(0x8000 + at // 2, 1 + at % 2 * 2, 1, at & 255) for at in range(unknown))
    plain = b"".join(_entry(*fields) for fields in _PLAIN)
    return b"II*\0" + _le(8) + _le(len(_PLAIN) + unknown, 2) + plain + tags + _le(0)


def tiff_overlapping(count: int, entries: int = 60_000) -> bytes:
    """Directories that share their entries: each begins 12 bytes behind the last one."""
    table = 8 + 2 + 12
    out = bytearray(b"II*\0" + _le(8))
    out += (_le(entries, 2) + bytes(10)) * 2
    span = table + 12 * (entries + count) + 4 * count
    out += bytes(span - len(out))
    for at in range(count):
        begin = 8 + 12 * at
        out[begin : begin + 2] = _le(entries, 2)
        end = begin + 2 + 12 * entries
        out[end : end + 4] = _le(begin + 12 if at < count - 1 else 0)
    return bytes(out)


def jpeg_markers(count: int, marker: bytes = b"\xff\xfe\0\2") -> bytes:
    frame = b"\xff\xc0\0\x0b\x08\0\1\0\1\1\1\x11\0"
    return b"\xff\xd8" + marker * count + frame + b"\xff\xd9"


def riff(kind: bytes, *chunks: bytes) -> bytes:
    data = kind + b"".join(chunks)
    return b"RIFF" + _le(len(data)) + data


def webp_frames(count: int) -> bytes:
    """An animation of one-pixel frames."""
    pixel = b"VP8L" + _le(18) + b"\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0\0\0\0\0"
    frame = b"ANMF" + _le(16 + len(pixel)) + bytes(12) + _le(10, 3) + b"\0" + pixel
    return riff(b"WEBP", b"VP8X" + _le(10) + b"\2" + bytes(9), b"ANIM" + _le(6) + bytes(6), frame * count)


def webp_chunks(count: int) -> bytes:
    return riff(b"WEBP", b"VP8X" + _le(10) + bytes(10), (b"XXXX" + _le(0)) * count)


def avif_items(count: int) -> bytes:
    """A `meta` box with so many items, each with its place and its properties."""
    info = b"".join(full(b"infe", _be(at & 0xFFFF, 2), bytes(2), b"av01", b"\0", flags=2 << 24) for at in range(count))
    meta = full(
        b"meta",
        full(b"hdlr", bytes(4), b"pict", bytes(13)),
        full(b"pitm", _be(1, 2)),
        full(b"iinf", _be(count & 0xFFFF, 2), info),
        full(b"iloc", b"\x44\0", _be(count & 0xFFFF, 2), bytes(14) * count),
        box(b"iprp", box(b"ipco", box(b"ispe", bytes(12)) * count), full(b"ipma", _be(0))),
    )
    return box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf") + meta


def avif_boxes(count: int) -> bytes:
    return box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf") + full(b"meta", box(b"free") * count)


# Sound and film


def ebml(kind: bytes, data: bytes) -> bytes:
    return kind + _be(len(data) | 1 << 56, 8) + data


_EBML = ebml(b"\x1a\x45\xdf\xa3", b"\x42\x82\x84webm")
_SEGMENT = b"\x18\x53\x80\x67"


def webm(*elements: bytes) -> bytes:
    return _EBML + ebml(_SEGMENT, b"".join(elements))


def tiny(kind: bytes, data: bytes = b"") -> bytes:
    return kind + bytes([0x80 | len(data)]) + data


_TRACK = tiny(
    b"\xae",
    tiny(b"\xd7", b"\1") + tiny(b"\x83", b"\1") + tiny(b"\x86", b"V_VP8") + tiny(b"\xe0", b"\xb0\x81\x10\xba\x81\x10"),
)
_TRACKS = ebml(b"\x16\x54\xae\x6b", _TRACK)
_CUE = tiny(b"\xbb", tiny(b"\xb3", b"\1") + tiny(b"\xb7", b"\xf7\x81\1\xf1\x81\1"))
_TAG = tiny(b"\x73\x73", tiny(b"\x67\xc8", b"\x45\xa3\x81a\x44\x87\x81b"))


# A hundred entries, each of which leads to the first one of its kind.
_ENTRY = tiny(b"\x4d\xbb", tiny(b"\x53\xab", b"\x16\x54\xae\x6b") + tiny(b"\x53\xac", b"\0"))
_CONTENTS = ebml(b"\x11\x4d\x9b\x74", _ENTRY * 100)


def webm_behind(count: int, *, tracks_first: bool) -> bytes:
    """Tags behind the pictures, to which the table of contents sends a reader. The tracks may be behind them."""
    kinds = {b"\x12\x54\xc3\x67": ebml(b"\x12\x54\xc3\x67", _TAG * count), b"\x16\x54\xae\x6b": _TRACKS}
    before = ebml(b"\x15\x49\xa9\x66", tiny(b"\x2a\xd7\xb1", b"\x0f\x42\x40")) + _TRACKS * tracks_first
    cluster = ebml(b"\x1f\x43\xb6\x75", tiny(b"\xe7", b"\0"))

    def contents(at: int) -> bytes:
        seeks = b""
        for kind, element in kinds.items():
            seeks += tiny(b"\x4d\xbb", tiny(b"\x53\xab", kind) + tiny(b"\x53\xac", _be(at, 8)))
            at += len(element)
        return ebml(b"\x11\x4d\x9b\x74", seeks)

    return webm(contents(len(contents(0) + before + cluster)), before, cluster, *kinds.values())


def ogg_streams(count: int) -> bytes:
    """A page of a new stream each."""
    head = b"\1vorbis" + bytes(4) + b"\2" + _le(44_100) + bytes(12) + b"\xb8\1"
    page = b"OggS\0\2" + bytes(8)
    return b"".join(page + _le(at) + bytes(8) + b"\1" + bytes([len(head)]) + head for at in range(count))


def id3(frames: int) -> bytes:
    """An ID3v2.3 tag of so many comments, then one frame of sound."""
    body = b"TXXX\0\0\0\4\0\0\0a\0b" * frames
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + body + (b"\xff\xfb\x90\x64" + bytes(413)) * 4


def wav(*chunks: bytes) -> bytes:
    form = b"fmt " + _le(16) + _le(1, 2) + _le(1, 2) + _le(44_100) + _le(88_200) + _le(2, 2) + _le(16, 2)
    return riff(b"WAVE", form, *chunks, b"data" + _le(8) + bytes(8))


def flac(blocks: int) -> bytes:
    info = b"\0\0\0\x22" + _be(4096, 2) * 2 + bytes(6) + b"\x0a\xc4\x42\xf0" + bytes(20)
    return b"fLaC" + info + b"\4\0\0\x08\0\0\0\0\0\0\0\0" * blocks + b"\x81\0\0\0"


def avi_lists(depth: int) -> bytes:
    header = b"avih" + _le(56) + bytes(56)
    return riff(b"AVI ", b"LIST" + _le(4 + len(header)) + b"hdrl" + header, (b"LIST" + _le(4) + b"movi") * depth)


def flv_arrays(depth: int) -> bytes:
    """Script data: an array in an array, and so on."""
    body = b"\2\0\x0aonMetaData" + (b"\3\0\1a" * depth)
    return b"FLV\1\5\0\0\0\x09" + bytes(4) + b"\x12" + _be(len(body), 3) + bytes(7) + body


BOMBS: dict[str, Callable[[], bytes]] = {
    "mp4 of 5,000 edits": lambda: mp4(5 * MB, edits=5000, offsets=5 * MB),
    "mp4 of 50,000 edits": lambda: mp4(MB, edits=50_000, offsets=MB),
    "mp4 of 2 million edits": lambda: mp4(MB, edits=2 * MB),
    "mp4 of 20 million samples": lambda: mp4(20 * MB),
    "mp4 of 400 million samples": lambda: mp4(400 * MB),
    "mp4 of 100 million shifts": lambda: mp4(100, offsets=100 * MB),
    "mp4 of 8 tracks of 4 million samples": lambda: mp4(4 * MB, tracks=8),
    "mp4 of 5,000 tracks": lambda: mp4(1, tracks=5000),
    "mp4 of 10 million chunks": lambda: mp4(10 * MB, chunks=10 * MB),
    "mp4 of endless sound": lambda: mp4(2**31 - 1, chunks=1000).replace(b"vide", b"soun"),
    "mp4 of a fragment of 100 million samples": lambda: fragments(100 * MB),
    "mp4 of 500,000 fragments": lambda: fragments(1, 500_000),
    "mp4 of empty trak boxes": lambda: FTYP + box(b"moov", box(b"trak") * 7_500_000),
    "mp4 of trak and mdia boxes": lambda: FTYP + box(b"moov", box(b"trak", box(b"mdia")) * 3_750_000),
    "mp4 of empty boxes": lambda: FTYP + box(b"free") * 7_500_000,
    "mp4 of nested boxes": lambda: FTYP + nested(b"moov", 5_000_000),
    "png of chunks": lambda: png(extra=png_chunk(b"zzZz", b"") * 5_000_000),
    "png of comments": lambda: png(extra=png_chunk(b"tEXt", b"a\0b") * 4_000_000),
    "png of packed comments": lambda: png(extra=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(5 * MB), 9)) * 900),
    "gif of one-byte blocks": lambda: gif(b"\x21\xfe" + b"\1a" * 30_000_000 + b"\0"),
    "gif of extensions": lambda: gif(b"\x21\xfe\0" * 20_000_000),
    "gif of a million frames": lambda: gif(b"", 1_000_000),
    "tiff of directories": lambda: tiff_directories(750_000),
    "tiff of directories in a loop": lambda: tiff_directories(2000, loop=True),
    "tiff of 60,000 unknown tags": lambda: tiff_tags(60_000),
    "tiff of 1,900 overlapping directories": lambda: tiff_overlapping(1900),
    "jpeg of comments": lambda: jpeg_markers(15_000_000),
    "jpeg of application data": lambda: jpeg_markers(10_000_000, b"\xff\xe1\0\4ab"),
    "jpeg of colour profiles": lambda: jpeg_markers(2_000_000, b"\xff\xe2\0\x12ICC_PROFILE\0\1\1ab"),
    "jpeg of fill bytes": lambda: jpeg_markers(60_000_000, b"\xff"),
    "webp of a million frames": lambda: webp_frames(1_000_000),
    "webp of empty chunks": lambda: webp_chunks(7_500_000),
    "avif of 65,000 items": lambda: avif_items(65_000),
    "avif of empty boxes": lambda: avif_boxes(7_500_000),
    "webm of empty elements": lambda: webm(tiny(b"\xec") * 30_000_000),
    "webm of tracks": lambda: webm(ebml(b"\x16\x54\xae\x6b", _TRACK * 1_000_000)),
    "webm of cues": lambda: webm(_TRACKS, ebml(b"\x1c\x53\xbb\x6b", _CUE * 4_000_000)),
    "webm of tags": lambda: webm(_TRACKS, ebml(b"\x12\x54\xc3\x67", _TAG * 4_000_000)),
    "webm of tables of contents": lambda: webm(_CONTENTS * 9_000, _TRACKS),
    "webm of tags behind its pictures": lambda: webm_behind(4_000_000, tracks_first=True),
    "webm of tags before its tracks": lambda: webm_behind(4_000_000, tracks_first=False),
    "ogg of streams": lambda: ogg_streams(600_000),
    "mp3 of comments": lambda: id3(4_000_000),
    "wav of chunks": lambda: wav((b"junk" + _le(0)) * 7_500_000),
    "flac of comments": lambda: flac(5_000_000),
    "avi of lists": lambda: avi_lists(5_000_000),
    "flv of nested arrays": lambda: flv_arrays(3_000_000),
    "ts of noise": lambda: (b"\x47\x5f\xff\x10" + bytes(184)) * 300_000,
    "mpg of padding": lambda: (b"\0\0\1\xba\x44\0\4\0\4\1\0\0\3\xf8" + b"\0\0\1\xbe\0\0") * 3_000_000,
    "aac of frames without data": lambda: b"\xff\xf1\x50\x80\1\x1f\xfc\x21" * 7_500_000,
    "amr of silence": lambda: b"#!AMR\n" + b"\x7c" * 60_000_000,
    "svg of spaces": lambda: b"<svg" + b" " * 60_000 + b"/>",
}
