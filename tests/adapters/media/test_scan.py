"""The header scan: what it answers, what it leaves to the decoder, and that the decoder agrees with every answer."""

from pathlib import Path
from types import ModuleType

import pytest

from tests import samples
from tests.adapters.media import hostile, scanning
from tests.adapters.media.hostile import png
from tests.adapters.media.pools import inspect, run
from uponce.adapters.media import scan, sniff
from uponce.adapters.media.pool import DecoderPool
from uponce.adapters.media.sniff import ordinary_facts, read_ordinary
from uponce.core.errors import MediaTooLarge
from uponce.core.formats import FORMATS
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType

SEEDS = scanning.seeds()
JPEG, PNG = samples.jpeg(1, 123, 45), SEEDS[6][1]
GIF, WEBP = samples.gif(1, 5, 60, 50), SEEDS[18][1]
ANIMATED_WEBP = next(file for name, file in SEEDS if name == "webp" and b"ANIM" in file)
ORDINARY = {
    "a jpeg": (JPEG, "jpg", (123, 45, 1)),
    "a png": (PNG, "png", (20, 20, 1)),
    "a gif": (GIF, "gif", (60, 50, 5)),
    "a gif of a screen that libvips ignores": (scanning.gif_of_screen(640, 480), "gif", (640, 480, 1)),
    "a webp": (WEBP, "webp", (20, 20, 1)),
    "a webp with metadata": (samples.webp(1, 61, 51), "webp", (61, 51, 1)),
    "an animated webp": (ANIMATED_WEBP, "webp", (20, 20, 2)),
}
# pyvips expects UTF-8 in the log of libvips, which quotes odd bytes of a PNG.
odd_log = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def shape_of(data: scan.Data, size: int, name: str) -> tuple[int | None, ...] | None:
    facts = ordinary_facts(data, size, FORMATS[name], Limits())
    return None if facts is None else (facts.width, facts.height, facts.pages)


def scanned(data: bytes, name: str) -> tuple[int | None, ...] | None:
    return shape_of(data, len(data), name)


@pytest.mark.parametrize("what", ORDINARY)
def test_it_reads_ordinary_pictures(what: str) -> None:
    picture, name, shape = ORDINARY[what]
    assert scanned(picture, name) == shape
    assert shape_of(memoryview(picture), len(picture), name) == shape


@pytest.mark.parametrize(("name", "picture"), [SEEDS[at] for at in (0, 6, *range(12, 24))])
def test_it_reads_what_encoders_write(name: str, picture: bytes) -> None:
    assert scanned(picture, name) is not None


@pytest.mark.parametrize("name", ["avif", "tiff", "mp4"])
def test_it_leaves_other_formats_to_the_decoder(name: str) -> None:
    assert scanned(JPEG, name) is None


@pytest.mark.parametrize("picture", [JPEG, PNG])
def test_a_header_that_is_not_whole_is_left_to_the_decoder(picture: bytes) -> None:
    """Every beginning of the file, up to where the picture's own data begins."""
    name = "jpg" if picture is JPEG else "png"
    first = next(length for length in range(len(picture)) if scanned(picture[:length], name))
    assert b"\xff\xda" in picture[:first] or b"IDAT" in picture[:first]


@pytest.mark.parametrize(("picture", "name"), [(GIF, "gif"), (WEBP, "webp"), (ANIMATED_WEBP, "webp")])
def test_a_gif_or_webp_that_is_cut_short_is_left_to_the_decoder(picture: bytes, name: str) -> None:
    assert not any(scanned(picture[:length], name) for length in range(len(picture)))


def test_the_first_bytes_are_enough_for_a_webp_but_not_for_a_gif() -> None:
    assert [shape_of(WEBP[:length], len(WEBP), "webp") for length in (29, 30)] == [None, (20, 20, 1)]
    assert shape_of(GIF[:-1], len(GIF), "gif") is None


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
    assert scanned(picture, "jpg") is None, what


def test_unusual_gifs_and_webps_are_left_to_the_decoder() -> None:
    shown = hostile.gif(20, 20)  # its first frame does not fill the screen
    chunks = [b"EXIF\x02\0\0\0ab", b"ANMF\0\0\0\0"]
    behind = [scanning.with_right_length(WEBP + chunk) for chunk in chunks] + [WEBP + chunks[1]]
    assert [scanned(shown, "gif"), *(scanned(each, "webp") for each in behind)] == [None] * 4


def test_the_work_for_one_file_is_bounded() -> None:
    """A GIF of too many blocks or frames goes to the decoder, and so does a WebP of too many chunks."""
    few, many = (GIF[:-1] + b"\x21\xfe" + b"\1a" * number + b"\0;" for number in (4000, 4096))
    assert scanned(few, "gif") == scanned(GIF, "gif") is not None
    assert [scanned(each, "gif") for each in (many, hostile.gif(1, 1, 9000))] == [None, None]
    head, *parts, last = scanning.webp_parts(ANIMATED_WEBP)
    many = scanning.with_right_length(b"".join((head, *parts, last * 300)))
    assert scanned(many, "webp") is None


@pytest.mark.parametrize("what", ORDINARY)
def test_an_ordinary_picture_asks_no_decoder(tmp_path: Path, what: str) -> None:
    picture, _, shape = ORDINARY[what]
    path = tmp_path / "picture"
    path.write_bytes(picture)

    async def scenario(pool: DecoderPool) -> tuple[MediaFacts, int]:
        facts = await pool.inspect(str(path), None)
        assert read_ordinary(memoryview(picture), None, Limits()) == facts
        return facts, sum(process.jobs for process in pool._all)

    facts, jobs = run(tmp_path, scenario, workers=1)
    assert (facts.width, facts.height, facts.pages) == shape
    assert jobs == 0


def test_a_decoder_refuses_too_many_frames() -> None:
    assert read_ordinary(GIF, ResourceType.IMAGE, Limits(max_frames=4)) is None


def test_a_picture_that_is_too_large_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "spooled").write_bytes(png(60_000, 60_000))
    with pytest.raises(MediaTooLarge, match=r"100000000 pixels\. Requested 3600000000"):
        inspect(tmp_path, (tmp_path / "spooled").read_bytes())


@pytest.mark.proof
@odd_log
@pytest.mark.parametrize("names", [("jpg", "png"), ("gif", "webp")])
def test_the_decoder_agrees_with_every_answer(names: tuple[str, ...]) -> None:
    tally = scanning.fuzz(20251125, lambda tally: tally.files.total() < 60_000, names)
    assert not tally.disagreements, [(name, mine, theirs) for name, _, mine, theirs in tally.disagreements]
    assert min(tally.accepted[name] for name in names) > 6_000


def until_it_finds(tally: scanning.Tally) -> bool:
    return tally.files.total() < 60_000 and not tally.disagreements


@pytest.mark.proof
@odd_log
@pytest.mark.parametrize(
    ("name", "module", "check"),
    [
        ("png", sniff, "_png_start_is_plain"),
        ("jpg", sniff, "_huffman_is_plain"),
        ("jpg", sniff, "_quantisation_is_plain"),
        ("gif", scan, "_gif_frame_fills_screen"),
        ("gif", scan, "_gif_extension_is_plain"),
        ("webp", scan, "_webp_frame_fits"),
    ],
)
def test_the_fuzz_finds_a_scan_that_checks_less(
    monkeypatch: pytest.MonkeyPatch, name: str, module: ModuleType, check: str
) -> None:
    monkeypatch.setattr(module, check, lambda *_: True)
    assert scanning.fuzz(20251125, until_it_finds, [name]).disagreements


@pytest.mark.proof
@odd_log
@pytest.mark.parametrize(
    ("name", "scanner"),
    [("webp", lambda data, _: scan.webp(data, 8 + scan._little(data, 4, 4))), ("gif", lambda data, _: (20, 20, 1))],
)
def test_the_fuzz_finds_a_scan_without_an_end(monkeypatch: pytest.MonkeyPatch, name: str, scanner: object) -> None:
    """A WebP with other bytes behind its end, and a GIF of which only the screen is read."""
    monkeypatch.setitem(sniff._READERS, name, scanner)
    assert scanning.fuzz(20251125, until_it_finds, [name]).disagreements
