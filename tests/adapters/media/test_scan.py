"""The header scan: what it answers, what it leaves to the decoder, and that libvips agrees with every answer."""

from pathlib import Path

import pytest

from tests.adapters.media import scanning
from tests.adapters.media.hostile import png
from tests.adapters.media.pools import inspect, run
from uponce.adapters.media import samples, scan
from uponce.adapters.media.pool import DecoderPool
from uponce.core.errors import MediaTooLarge
from uponce.core.values import MediaFacts

JPEG, PNG = samples.jpeg(1, 123, 45), scanning.seeds()[6][1]


def test_it_reads_ordinary_pictures() -> None:
    assert scan.scan(JPEG, "jpg") == (123, 45)
    assert scan.scan(PNG, "png") == (20, 20)


@pytest.mark.parametrize("name", ["gif", "webp", "avif", "tiff", "mp4"])
def test_it_leaves_other_formats_to_the_decoder(name: str) -> None:
    assert scan.scan(JPEG, name) is None


@pytest.mark.parametrize("picture", [JPEG, PNG])
def test_a_header_that_is_not_whole_is_left_to_the_decoder(picture: bytes) -> None:
    """Every beginning of the file, up to where the picture's own data begins."""
    name = "jpg" if picture is JPEG else "png"
    first = next(length for length in range(len(picture)) if scan.scan(picture[:length], name))
    assert b"\xff\xda" in picture[:first] or b"IDAT" in picture[:first]


@pytest.mark.parametrize(
    ("what", "picture"),
    [
        ("a lossless JPEG", JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1)),
        ("an arithmetic JPEG", JPEG.replace(b"\xff\xc0", b"\xff\xc9", 1)),
        ("twelve bits", JPEG.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c", 1)),
        ("no height", JPEG.replace(b"\x00\x2d\x00\x7b", b"\x00\x00\x00\x7b", 1)),
    ],
)
def test_unusual_jpegs_are_left_to_the_decoder(what: str, picture: bytes) -> None:
    assert picture != JPEG, what
    assert scan.scan(picture, "jpg") is None, what


@pytest.mark.parametrize("picture", [JPEG, PNG])
def test_an_ordinary_picture_asks_no_decoder(tmp_path: Path, picture: bytes) -> None:
    path = tmp_path / "picture"
    path.write_bytes(picture)

    async def scenario(pool: DecoderPool) -> tuple[MediaFacts, int]:
        facts = await pool.inspect(str(path), None)
        return facts, sum(process.jobs for process in pool._all)

    facts, jobs = run(tmp_path, scenario, workers=1)
    assert (facts.width, facts.height, facts.pages) in ((123, 45, 1), (20, 20, 1))
    assert jobs == 0


def test_a_picture_that_is_too_large_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "spooled").write_bytes(png(60_000, 60_000))
    with pytest.raises(MediaTooLarge, match=r"100000000 pixels\. Requested 3600000000"):
        inspect(tmp_path, (tmp_path / "spooled").read_bytes())


@pytest.mark.proof
def test_libvips_agrees_with_every_answer() -> None:
    tally = scanning.fuzz(20251125, lambda files: files < 60_000)
    assert not tally.disagreements, [(name, mine, theirs) for name, _, mine, theirs in tally.disagreements]
    assert tally.accepted > 20_000


@pytest.mark.proof
@pytest.mark.parametrize("check", ["_png_start_is_plain", "_huffman_is_plain", "_quantisation_is_plain"])
def test_the_fuzz_finds_a_scan_that_checks_less(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    monkeypatch.setattr(scan, check, lambda _: True)
    tally = scanning.fuzz(20251125, lambda files: files < 60_000)
    assert tally.disagreements
