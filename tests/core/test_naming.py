"""How an asset gets its public_id."""

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.core.strategies import public_ids
from uponce.core.errors import InvalidParameter
from uponce.core.naming import MAX_LENGTH, Naming, check_public_id, folder_of, original_filename, split_filename
from uponce.core.values import ResourceType

IMAGE, VIDEO, RAW = ResourceType
RANDOM, SUFFIX = "r" * 20, "s" * 6

file_names = st.one_of(
    st.text(st.characters()),
    st.text('ab.é _/\\&?%"\u0301\u202e\ufeff \n', max_size=300),
    st.builds("{}.{}".format, st.text(max_size=300), st.text(max_size=300)),
)


@pytest.mark.parametrize(
    ("naming", "kind", "filename", "public_id"),
    [
        (Naming(), IMAGE, "photo.jpg", RANDOM),
        (Naming(), VIDEO, None, RANDOM),
        (Naming(), RAW, None, RANDOM),
        (Naming(), RAW, "report", RANDOM),
        (Naming(), RAW, "report.docx", f"{RANDOM}.docx"),
        (Naming(), RAW, "a.tar.gz", f"{RANDOM}.gz"),
        (Naming(), RAW, "report.???", RANDOM),
        (Naming(public_id="a/b"), IMAGE, "photo.jpg", "a/b"),
        (Naming(public_id="a.jpg"), RAW, "photo.png", "a.jpg"),
        (Naming(public_id="p", use_filename=True), IMAGE, "photo.jpg", "p"),
        (Naming(folder="f"), IMAGE, None, f"f/{RANDOM}"),
        (Naming(folder="f/g", public_id="p"), IMAGE, None, "f/g/p"),
        (Naming(folder="/Xf/", public_id="/pX"), IMAGE, None, "Xf/pX"),
        (Naming(), RAW, "a." + "x" * 41, f"{RANDOM}.{'x' * 40}"),
        (Naming(folder="f", public_id_prefix="x", public_id="p"), IMAGE, None, "f/x/p"),
        (Naming(public_id_prefix="x"), RAW, "a.csv", f"x/{RANDOM}.csv"),
        (Naming(use_filename=True), IMAGE, "photo.jpg", f"photo_{SUFFIX}"),
        (Naming(use_filename=True), RAW, "report.docx", f"report_{SUFFIX}.docx"),
        (Naming(use_filename=True, unique_filename=False), IMAGE, "photo.jpg", "photo"),
        (Naming(use_filename=True, unique_filename=False), IMAGE, "üni_näme_lögö.gif", "üni_näme_lögö"),
        (Naming(use_filename=True, unique_filename=False), RAW, "report.docx", "report.docx"),
        (Naming(use_filename=True, unique_filename=False), RAW, "report.???", "report"),
        (Naming(use_filename=True, unique_filename=False), RAW, ".htaccess", "htaccess"),
        (Naming(use_filename=True, unique_filename=False), IMAGE, "a.b.jpg", "a.b"),
        (Naming(use_filename=True, unique_filename=False), IMAGE, "_XeroX_.jpg", "XeroX"),
        (Naming(use_filename=True, unique_filename=False), IMAGE, "my photo (1).jpg", "my_photo_(1)"),
        (Naming(use_filename=True, unique_filename=False), IMAGE, "C:\\pictures\\cat.jpg", "cat"),
        (Naming(use_filename=True, unique_filename=False), IMAGE, "../../etc/passwd", "passwd"),
        (Naming(use_filename=True, unique_filename=False), IMAGE, "x" * 199 + ".yz.jpg", "x" * 199),
        (Naming(use_filename=True, unique_filename=False, folder="f"), IMAGE, "cat.jpg", "f/cat"),
        (Naming(use_filename=True, filename_override="dog.png"), IMAGE, "cat.jpg", f"dog_{SUFFIX}"),
        (Naming(use_filename=True, folder="f" * 199), IMAGE, "n" * 99 + ".jpg", f"{'f' * 199}/{'n' * 44}_{SUFFIX}"),
        (Naming(use_filename=True, folder="f" * 199), RAW, "n" * 99 + ".jpg", f"{'f' * 199}/{'n' * 44}_{SUFFIX}.jpg"),
        (Naming(use_filename=True, folder="f" * 240), IMAGE, "_cat.jpg", f"{'f' * 240}/cat_{SUFFIX}"),
        (Naming(filename_override="dog.png"), IMAGE, "cat.jpg", RANDOM),
        (Naming(filename_override="report.docx"), RAW, "tmp.bin", f"{RANDOM}.docx"),
        (Naming(use_filename=True, folder="/"), IMAGE, "cat.jpg", f"cat_{SUFFIX}"),
        (Naming(use_filename=True), IMAGE, None, RANDOM),
        (Naming(use_filename=True), IMAGE, "", RANDOM),
        (Naming(use_filename=True), IMAGE, "???.jpg", RANDOM),
        (Naming(use_filename=True), IMAGE, "..", RANDOM),
        (Naming(use_filename=True), RAW, "???.csv", f"{RANDOM}.csv"),
    ],
)
def test_name(naming: Naming, kind: ResourceType, filename: str | None, public_id: str) -> None:
    assert naming.name(kind, filename, RANDOM, SUFFIX) == public_id


def test_slashes_around_a_name_that_stands_alone_are_refused() -> None:
    with pytest.raises(InvalidParameter, match="empty"):
        Naming(public_id="/p").name(IMAGE, None, RANDOM, SUFFIX)


@given(
    filename=file_names,
    kind=st.sampled_from(ResourceType),
    unique=st.booleans(),
    folder=st.none() | st.just("some/folder") | st.just("f" * 150 + "/" + "f" * 50),
    overridden=st.booleans(),
)
def test_any_file_name_makes_an_allowed_public_id(
    filename: str, kind: ResourceType, unique: bool, folder: str | None, overridden: bool
) -> None:
    """Whatever a client calls its file, the upload is not refused for it and the name is harmless."""
    override, sent = (filename, "x") if overridden else (None, filename)
    naming = Naming(use_filename=True, unique_filename=unique, folder=folder, filename_override=override)
    public_id = naming.name(kind, sent, RANDOM, SUFFIX)
    assert public_id == check_public_id(public_id)
    assert not set('?&#\\%<>+"') & set(public_id)
    assert public_id.count("/") == (2 if folder else 0)


@given(filename=file_names, kind=st.sampled_from(ResourceType))
def test_any_file_name_leaves_a_random_name_allowed(filename: str, kind: ResourceType) -> None:
    public_id = Naming().name(kind, filename, RANDOM, SUFFIX)
    assert public_id == check_public_id(public_id)
    assert re.match(rf"{RANDOM}(\.|$)", public_id)


def test_a_folder_that_leaves_no_room_for_a_file_name_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="it has 257 characters, 255 are allowed"):
        Naming(use_filename=True, folder="f" * 248).name(IMAGE, "cat.jpg", RANDOM, SUFFIX)


def test_parts_that_are_too_long_together_are_refused() -> None:
    with pytest.raises(InvalidParameter, match=r"^public_id \(f{100}\) is invalid: it has 401 characters, 255 are"):
        Naming(folder="f" * 200, public_id="p" * 200).name(IMAGE, None, RANDOM, SUFFIX)


@given(
    folder=st.integers(0, 255),
    prefix=st.integers(0, 30),
    public_id=st.integers(0, 255),
    use=st.booleans(),
    unique=st.booleans(),
    override=st.sampled_from([None, "n" * 99 + ".jpg", "???.jpg"]),
)
@example(folder=234, prefix=0, public_id=0, use=False, unique=True, override=None)
@example(folder=246, prefix=0, public_id=0, use=True, unique=True, override=None)
@example(folder=253, prefix=0, public_id=0, use=True, unique=False, override=None)
def test_a_name_is_refused_beforehand_only_if_it_is_too_long_for_each_file(
    folder: int, prefix: int, public_id: int, use: bool, unique: bool, override: str | None
) -> None:
    naming = Naming("p" * public_id or None, "x" * prefix or None, "f" * folder or None, use, unique, override)
    files = ["a", "a.jpg", "a.docx", "n" * 300 + ".csv", "???", None]
    shortest = min(len(naming.written(kind, file, RANDOM, SUFFIX)) for kind in ResourceType for file in files)
    if shortest <= MAX_LENGTH:
        naming.check_length()
        return
    with pytest.raises(InvalidParameter, match=f"make a name of at least {shortest} characters, 255 are allowed"):
        naming.check_length()


@given(public_id=public_ids)
def test_an_allowed_public_id_is_kept_as_it_is(public_id: str) -> None:
    """Once in form NFC, a name does not change however often it is checked."""
    assert check_public_id(public_id) == public_id
    assert unicodedata.is_normalized("NFC", public_id)


@given(text=st.text(st.characters()))
def test_any_text_is_allowed_or_refused_with_a_reason(text: str) -> None:
    """Nothing else happens, and the reason fits on one line."""
    try:
        assert len(check_public_id(text)) <= MAX_LENGTH
    except InvalidParameter as error:
        assert " is invalid: " in str(error)
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("filename", "parts"),
    [
        ("a.jpg", ("a", "jpg")),
        ("a.b.c", ("a.b", "c")),
        ("a", ("a", "")),
        ("", ("", "")),
        (".htaccess", (".htaccess", "")),
        ("a.", ("a", "")),
        ("/etc/passwd", ("passwd", "")),
        ("C:\\x\\y.png", ("y", "png")),
        ("dir.d/file", ("file", "")),
        ("dir/", ("", "")),
    ],
)
def test_split_filename(filename: str, parts: tuple[str, str]) -> None:
    assert split_filename(filename) == parts


@pytest.mark.parametrize(("public_id", "folder"), [("a", ""), ("a/b", "a"), ("a/b/c", "a/b")])
def test_folder_of(public_id: str, folder: str) -> None:
    assert folder_of(public_id) == folder


def test_only_a_folder_may_not_look_like_a_version() -> None:
    for name in ("v123", "s--é--"):
        assert check_public_id(name) == name
    for name, is_folder in (("v123/a", False), ("v123", True)):
        with pytest.raises(InvalidParameter, match="its first folder looks like a version"):
            check_public_id(name, is_folder=is_folder)


@pytest.mark.parametrize(
    ("filename", "label"),
    [
        ("C:\\Photos\\été 1.jpg", "été 1"),
        ("a\r\nSet-Cookie: x=1\0.txt", "aSet-Cookie: x=1"),
        ("a\u202egpj.exe", "agpj"),
        ("\u2066a\x85\u2069", "a"),
        ("\n", None),
        ("", None),
    ],
)
def test_an_original_filename_is_a_label_in_one_line(filename: str, label: str | None) -> None:
    assert original_filename(filename) == label
