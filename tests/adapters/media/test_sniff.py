"""What the first bytes say, in this process, before any decoder is asked."""

import random

import filetype
import pytest

from tests.adapters.media.hostile import NOT_MEDIA
from uponce.adapters.media.sniff import _CHECKS, MEDIA, admit, sniff
from uponce.core.errors import InvalidMedia
from uponce.core.formats import FORMATS, canonical_format
from uponce.core.values import ResourceType

IMAGE, VIDEO, RAW = ResourceType.IMAGE, ResourceType.VIDEO, ResourceType.RAW


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    body = b"ftyp" + major + bytes(4) + b"".join(compatible)
    return (len(body) + 4).to_bytes(4) + body + bytes(64)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (ftyp(b"avif", b"mif1", b"miaf"), "avif"),
        (ftyp(b"mif1", b"miaf", b"avif"), "avif"),
        (ftyp(b"heic", b"mif1"), "heic"),
        (ftyp(b"isom", b"iso2", b"avc1", b"mp41"), "mp4"),
        (ftyp(b"XAVC", b"mp42"), "mp4"),
        (ftyp(b"qt  "), "mov"),
        (ftyp(b"M4A ", b"mp42"), "m4a"),
        (ftyp(b"3gp4", b"isom"), "3gp"),
        (ftyp(b"crx ", b"isom"), "cr3"),
        (b"\0\0\0\x08wide\0\0\x10\0mdat" + bytes(64), "mov"),
        (b"\x09\0\0\x10mdat" + bytes(64), "mov"),
        (b"Say mdat to a friend of QuickTime".ljust(80), None),
        (b"ID3\x04\0\0\0\0\0\x05" + bytes(5) + b"\xff\xf1\x50\x80", "aac"),
        (b"ID3\x04\0\x10\0\0\1\0" + bytes(138) + b"\xff\xf9\x50\x80", "aac"),
        (b"ID3\x04\0\0\0\0\0\x05" + bytes(5) + b"fLaC\0\0\0\x22", "flac"),
        (b"ID3\x04\0\0\0\0\0\x05" + bytes(5) + b"\xff\xfb\x90\x64", "mp3"),
        (b"ID3\x04\0\0\0\x7f\x7f\x7f" + bytes(64), "mp3"),
        (b"ID3", "mp3"),
        (b"\0\0\1\xba\x44" + bytes(64), "mpg"),
        (b"\0\0\1\xb3\x16" + bytes(64), None),
        (b"\0\0\1\0\1\0\x20\x20\0\xff\1\0\x20\0" + bytes(64), "ico"),
        (b"\0\0\1\0\1\0\x20\x20\0\x07\1\0\x20\0" + bytes(64), None),
        (b"\x1a\x45\xdf\xa3\x8b\x42\x82\x84webm\x42\x87\x81\x04", "webm"),
        (b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska\x42\x87\x81\x04", "mkv"),
        ((b"\x47" + bytes(187)) * 4, "ts"),
        ((bytes(4) + b"\x47" + bytes(187)) * 4, "ts"),
        (b"\xff\xfa\x90\x64" + bytes(64), "mp3"),
        (b"RF64\xff\xff\xff\xffWAVEds64" + bytes(64), "wav"),
        (b"BW64\xff\xff\xff\xffWAVEds64" + bytes(64), "wav"),
        (b"RF64 is a sound of more than 4 GB", None),
        (b"II+\0\x08\0\0\0" + bytes(64), "tiff"),
        (b"II*\0\x08\0\0\0" + bytes(64), "tiff"),
        (b"\xef\xbb\xbf  <SVG>", "svg"),
        (b"Tax-free shopping in the text of a letter", None),
        (b"", None),
    ],
)
def test_types_the_library_is_silent_or_wrong_about(head: bytes, name: str | None) -> None:
    """Only the field that names the container decides, wherever else the words may be."""
    assert sniff(head) == name


def test_many_brands_cost_no_more_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads each brand of its part four times: 3 ms for 8 KB, before any signature is looked at."""
    given: list[int] = []
    match = filetype.match

    def counted(head: bytes, types: object) -> object:
        given.append(len(head))
        return match(head, types)

    monkeypatch.setattr(filetype, "match", counted)
    assert sniff(ftyp(*[bytes(4)] * 2044), MEDIA) is None
    assert sniff(ftyp(b"M4VX", *[bytes(4)] * 3), MEDIA) == "mp4"
    assert given == [32, 32]
    assert sniff(ftyp(*[b"none"] * 64, b"isom"), MEDIA) == "mp4"
    assert sniff(ftyp(*[b"none"] * 66, b"isom"), MEDIA) is None


def test_a_doctype_counts_only_in_its_place() -> None:
    """The word webm somewhere in a Matroska file does not make it WebM."""
    head = b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska" + bytes(100) + b"\x42\x82\x84webm"
    assert sniff(head) == "mkv"


@pytest.mark.parametrize("name", NOT_MEDIA)
@pytest.mark.parametrize("requested", [IMAGE, VIDEO])
def test_what_is_no_media_is_refused_as_media(name: str, requested: ResourceType) -> None:
    """The refusal begins with the sentence that clients know and says what the bytes look like."""
    with pytest.raises(InvalidMedia, match=f"^Invalid {requested} file") as refusal:
        admit(NOT_MEDIA[name], requested)
    assert "raw" in refusal.value.message


@pytest.mark.parametrize("name", NOT_MEDIA)
def test_what_is_no_media_is_raw_under_auto(name: str) -> None:
    assert admit(NOT_MEDIA[name], None) is None


def test_the_other_kind_is_named() -> None:
    """The refusal of a film that was sent as an image says so."""
    with pytest.raises(InvalidMedia, match=r"MP4\. Upload it as video"):
        admit(ftyp(b"isom"), IMAGE)


def test_an_ordinary_jpeg_is_nothing_else() -> None:
    """Whatever follows the first five bytes."""
    chance = random.Random(3)
    for rest in (b"", b"ftypavif", b"ftyp" * 50, b"\x47" * 400, *(chance.randbytes(200) for _ in range(200))):
        for fourth in (0xD8, 0xDB, 0xE0, 0xE1, 0xFE):
            head = bytes((0xFF, 0xD8, 0xFF, fourth, 0)) + rest
            assert sniff(head) == canonical_format(filetype.guess_extension(head)) == "jpg"
            assert not any(check(head) for check in _CHECKS)


def test_no_beginning_is_too_short_or_too_odd() -> None:
    """Sniffing runs in the server itself: it must have an opinion on any bytes and never fail."""
    matroska = b"\x1a\x45\xdf\xa3\x8b\x42\x82\x88matroska"
    heads = [matroska, ftyp(b"isom"), b"RIFF\0\0\0\0WEBPVP8X", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", *NOT_MEDIA.values()]
    chance = random.Random(1)
    for head in heads:
        for end in range(min(len(head), 64) + 1):
            torn = bytearray(head[:end])
            assert sniff(bytes(torn)) != ""
            if torn:
                torn[chance.randrange(len(torn))] = chance.randrange(256)
                sniff(bytes(torn))


def test_raw_takes_anything() -> None:
    assert admit(b"\xff\xd8\xff\xe0", RAW) is None


def test_formats_are_listed_under_their_own_name() -> None:
    assert all(format_.name == name for name, format_ in FORMATS.items())


def test_all_types_that_the_library_has_for_a_format_are_asked() -> None:
    known, asked = ({canonical_format(each.extension) for each in types} for types in (filetype.TYPES, MEDIA))
    assert known & FORMATS.keys() == asked & FORMATS.keys()


def test_a_text_is_no_transport_stream() -> None:
    """Three bytes at the right distance are chance in a text of four letters."""
    text = bytearray(b"ACTA" * 2048)
    text[0] = text[188] = text[376] = ord("G")
    assert sniff(bytes(text)) is None
    assert sniff((b"G" + bytes(187)) * 3) == "ts"
