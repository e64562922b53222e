"""BMP, ICO, PDF and SVG: size and pages from the first bytes, and nothing of them runs."""

import struct
from pathlib import Path

import pytest

from tests.adapters.media.hostile import SVG
from tests.samples import bmp, ico
from uponce.adapters.media import worker
from uponce.adapters.media.headers import read_header
from uponce.adapters.media.sniff import admit, sniff
from uponce.core.errors import InvalidMedia
from uponce.core.formats import FORMATS
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType

IMAGE = ResourceType.IMAGE


def bmp_of_os2(width: int, height: int) -> bytes:
    return b"BM" + bytes(12) + struct.pack("<IHHHH", 12, width, height, 1, 24) + bytes(8)


def pdf(body: bytes) -> bytes:
    return b"%PDF-1.7\n" + body + b"\ntrailer<</Root 1 0 R>>\n%%EOF\n"


TWO_PAGES = pdf(
    b"1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Kids[3 0 R 4 0 R]/Type /Pages /Count 2>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 595.28 841.89]>>endobj\n4 0 obj<</Type/Page/Count 99>>endobj"
)

FILES: dict[str, tuple[bytes, MediaFacts]] = {
    "bmp": (bmp(7, 5), MediaFacts(IMAGE, "bmp", 7, 5, 1)),
    "bmp from top to bottom": (bmp(7, -5), MediaFacts(IMAGE, "bmp", 7, 5, 1)),
    "bmp of OS/2": (bmp_of_os2(7, 5), MediaFacts(IMAGE, "bmp", 7, 5, 1)),
    "ico": (ico((16, 16), (48, 32)), MediaFacts(IMAGE, "ico", 48, 32, 1)),
    "ico of 256": (ico((16, 16), (0, 0)), MediaFacts(IMAGE, "ico", 256, 256, 1)),
    "pdf": (TWO_PAGES, MediaFacts(IMAGE, "pdf", 595, 842, 2)),
    "pdf that packs its objects": (pdf(b"1 0 obj<</Type/ObjStm>>endobj"), MediaFacts(IMAGE, "pdf")),
    "svg": (SVG, MediaFacts(IMAGE, "svg", 9, 9, 1)),
    "svg of a view": (b'<svg viewBox="0 0 24.5 12"/>', MediaFacts(IMAGE, "svg", 24, 12, 1)),
    "svg in pixels": (b"<svg width='20px' height='10.4px' viewBox='0 0 1 1'>", MediaFacts(IMAGE, "svg", 20, 10, 1)),
    "svg in millimetres": (b'<svg width="20mm" height="10mm"></svg>', MediaFacts(IMAGE, "svg", None, None, 1)),
    "svg behind a prolog": (
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- a <b> -->\n<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        + SVG,
        MediaFacts(IMAGE, "svg", 9, 9, 1),
    ),
    "svg behind a comment with another": (
        b"<!-- <svg width='1' height='2'> -->" + SVG,
        MediaFacts(IMAGE, "svg", 9, 9, 1),
    ),
    "svg behind entities": (
        b"<!DOCTYPE svg PUBLIC '-//W3C//DTD > SVG 1.1//EN' [<!-- it's ]> --><?x ]>?>"
        b"<!ENTITY a \"<svg width='1' height='2'>\"><!ENTITY b ']>'> ] >" + SVG,
        MediaFacts(IMAGE, "svg", 9, 9, 1),
    ),
    "svg with a sign of a tag in a value": (
        b"""<svg aria-label="a > b" data-a='"' viewBox='0 0 1 1' width="20" height="10"/>""",
        MediaFacts(IMAGE, "svg", 20, 10, 1),
    ),
    "svg with a size in the value of another attribute": (
        b"""<svg data-a=" width='1' height='2' " width="20" height="10"/>""",
        MediaFacts(IMAGE, "svg", 20, 10, 1),
    ),
    "svg with an entity in its size": (
        b'<!DOCTYPE svg [<!ENTITY w "20">]><svg width="&w;" height="10" viewBox="0 0 1 1"/>',
        MediaFacts(IMAGE, "svg", None, None, 1),
    ),
    "svg that is not well-formed": (
        b"<svg title=it's width='20' height='10'>",
        MediaFacts(IMAGE, "svg", None, None, 1),
    ),
    "svg with a prefix": (b'<s:svg xmlns:s="http://www.w3.org/2000/svg"/>', MediaFacts(IMAGE, "svg", None, None, 1)),
}


@pytest.mark.parametrize("name", FILES)
def test_facts(tmp_path: Path, name: str) -> None:
    """Asked as an image and as auto alike."""
    content, facts = FILES[name]
    format_ = admit(content, IMAGE)
    assert format_ is not None and format_ == admit(content, None)
    path = tmp_path / "spooled"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert read_header(file, format_) == facts


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bmp", bmp(0, 5)),
        ("bmp", bmp(-1, 5)),
        ("bmp", bmp_of_os2(0, 0)),
        ("bmp", bmp_of_os2(7, 0)),
        ("svg", b"<svg width='1'" + bytes(70_000)),
        ("svg", b"<!-- <svg width='1' height='1'>" + bytes(70_000)),
    ],
)
def test_a_broken_header_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "spooled"
    path.write_bytes(content)
    with path.open("rb") as file, pytest.raises(InvalidMedia, match=r"^Invalid image file\. "):
        read_header(file, FORMATS[name])


def test_a_header_that_ends_too_soon_is_refused(tmp_path: Path) -> None:
    """The reader meets the end of the file, and the worker says so in the words for every file."""
    path = tmp_path / "spooled"
    path.write_bytes(bmp(7, 5)[:20])
    words = r"^Invalid image file\. It begins like BMP, but its header cannot be read\.$"
    with path.open("rb") as file, pytest.raises(InvalidMedia, match=words):
        worker._inspect(file, FORMATS["bmp"], Limits())


@pytest.mark.parametrize(
    "content",
    [
        b"BMW builds cars.".ljust(80),
        b"\0\0\1\0" + bytes(60),
        b'<html><body><svg width="1"></svg>',
        b'<?xml version="1.0"?><!-- <svg> --><feed/>',
        b'<!DOCTYPE feed [<!ENTITY a "]><svg>">]><feed/>',
        b"<!DOCTYPE feed [<!-- ]><svg>",
        b"<svgfoo>",
    ],
)
def test_what_only_begins_alike_is_no_image(content: bytes) -> None:
    """A magic number of two bytes proves nothing, and the word svg in a text proves nothing either."""
    assert sniff(content) not in FORMATS
    assert admit(content, None) is None
