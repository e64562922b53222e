"""Attacks on names: each is refused with a reason or kept as a harmless name, the same at every door."""

import unicodedata
from urllib.parse import quote

import pytest

from uponce.core.errors import InvalidParameter, NotFound
from uponce.core.naming import Naming, check_public_id, parse_path, path_of
from uponce.core.parameters import read_parameters
from uponce.core.values import AssetName, DeliveryType, ResourceType

SEGMENT = "it has a '.' or '..' segment"
EMPTY = "it begins or ends with '/', has '//' in it, or is empty"
EDGE = "a segment begins or ends with a space, or ends with a dot"
RESERVED = "its first folder looks like a version (v123) or a signature (s--…--)"


def _character(code: str) -> str:
    char = chr(int(code, 16))
    named = f"'{char}' (U+{code})" if char.isprintable() else f"U+{code}"
    return f"the character {named} is not allowed"


def _id(name: str) -> str:
    """Of a test: without backslashes, which pytest would escape once more whenever it collects in one process."""
    return quote(name[:20], errors="surrogatepass")


REFUSED = [
    ("..", SEGMENT),
    ("../", EMPTY),
    ("../x", SEGMENT),
    ("a/../b", SEGMENT),
    ("a/./b", SEGMENT),
    (".", SEGMENT),
    ("", EMPTY),
    ("/", EMPTY),
    ("....//", EMPTY),
    ("a//b", EMPTY),
    ("/abs", EMPTY),
    ("//host", EMPTY),
    ("a/", EMPTY),
    ("....", EDGE),
    ("a.", EDGE),
    ("a./b", EDGE),
    ("a ", EDGE),
    (" a", EDGE),
    ("a/ b", EDGE),
    ("a\u00a0", EDGE),
    ("a\u3000/b", EDGE),
    ("%2e%2e%2f", _character("0025")),
    ("%252e", _character("0025")),
    ("..%c0%af", _character("0025")),
    ("..\\", _character("005C")),
    ("a\\b", _character("005C")),
    ("a?b", _character("003F")),
    ("*?[a]", _character("003F")),
    ("a&b", _character("0026")),
    ("a#b", _character("0023")),
    ("<script>", _character("003C")),
    ("a>b", _character("003E")),
    ("a+b", _character("002B")),
    ('a"b', _character("0022")),
    ("a\0", _character("0000")),
    ("a\0.jpg", _character("0000")),
    ("a\rb", _character("000D")),
    ("a\nb", _character("000A")),
    ("a\tb", _character("0009")),
    ("a\x1b[31m", _character("001B")),
    ("a\x7f", _character("007F")),
    ("a\x85b", _character("0085")),
    ("a\u2028b", _character("2028")),
    ("a\u2029b", _character("2029")),
    ("gpj\u202e.exe", _character("202E")),
    ("a\u200eb", _character("200E")),
    ("a\u200fb", _character("200F")),
    ("a\u2066b", _character("2066")),
    ("a\u200bb", _character("200B")),
    ("a\u200db", _character("200D")),
    ("\ufeffa", _character("FEFF")),
    ("a\ud800", _character("D800")),
    ("a\ue000", _character("E000")),
    ("a\uffff", _character("FFFF")),
    ("a\U000e0041", _character("E0041")),
    ("v123/x", RESERVED),
    ("v1/a/b", RESERVED),
    ("s--AAAAAAAA--/x", RESERVED),
    ("s----/x", RESERVED),
    ("a" * 256, "it has 256 characters, 255 are allowed"),
    ("a" * 10_000, "it has 10000 characters, 255 are allowed"),
    ("a" + "\u0301" * 1000, "it has 1000 characters, 255 are allowed"),
]

# Odd, and harmless: a name is a text in the catalog and never a path.
KEPT = [
    "a" * 255,
    "図" * 255,
    "~",
    "~root",
    "-rf",
    "$(id)",
    "`id`",
    "a;b|c",
    "*[a]",
    "{a,b}",
    "CON",
    "NUL.jpg",
    ".htaccess",
    ".git/config",
    "...a",
    "．．／",
    "a／b",
    "a\u2215b",
    "v123",
    "v123abc/x",
    "a/v123/x",
    "s--AAAAAAAA--",
    "upload",
    "v1_1/demo/image/upload",
    "healthz",
    "w_100,h_100/x",
    "a.tar.gz",
    "a.svg",
    "a.php.jpg",
    "x'y",
    "x=y",
    "a:b",
    "C:",
    "http:x",
    "a b",
    "раураl",
    "a" + "\u0301" * 200,
]


# Slashes around a folder are dropped, so those names are others there: see below.
AT_DOORS = [
    (door, name, reason)
    for door in ("public_id", "folder", "public_id_prefix")
    for name, reason in REFUSED
    if door == "public_id" or name == name.strip("/")
]

TWINS = [
    ("\u00e9", "e\u0301"),
    ("\u00c5", "A\u030a"),
    ("\u00c5", "\u212b"),
    ("\u1e69", "s\u0307\u0323"),
    ("\ud55c", "\u1112\u1161\u11ab"),
    ("K", "\u212a"),
    (";", "\u037e"),
]


def _named(public_id: str, kind: ResourceType = ResourceType.RAW) -> AssetName:
    return AssetName("demo", kind, DeliveryType.UPLOAD, public_id)


@pytest.mark.parametrize(("door", "name", "reason"), AT_DOORS, ids=[f"{d}-{_id(n)}" for d, n, _ in AT_DOORS])
def test_refused_at_every_door(door: str, name: str, reason: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_parameters({door: name})
    assert str(caught.value).startswith(f"{door} (")
    assert str(caught.value).endswith(f") is invalid: {reason}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [name for name, _ in REFUSED], ids=_id)
@pytest.mark.parametrize("kind", ResourceType)
def test_a_file_so_called_is_stored_under_a_harmless_name(name: str, kind: ResourceType) -> None:
    naming = Naming(use_filename=True, unique_filename=False)
    public_id = naming.name(kind, name, "r" * 20, "s" * 6)
    assert public_id == check_public_id(public_id)
    assert public_id != name
    assert "/" not in public_id


@pytest.mark.parametrize("folder", ["/abs", "//host", "abs/", "/abs/host//"])
def test_slashes_around_a_folder_mean_nothing(folder: str) -> None:
    naming = read_parameters({"folder": folder, "public_id": "x"}).naming
    assert naming.name(ResourceType.IMAGE, None, "r", "s") == f"{folder.strip('/')}/x"


@pytest.mark.parametrize("door", ["folder", "public_id_prefix"])
@pytest.mark.parametrize("name", ["v123", "s--AAAAAAAA--"])
def test_a_first_folder_that_a_url_reads_otherwise_is_refused(door: str, name: str) -> None:
    """Harmless alone as a public_id, ambiguous before a slash; refused before the file is sent."""
    assert read_parameters({"public_id": name}).naming.public_id == name
    with pytest.raises(InvalidParameter, match="its first folder looks like a version"):
        read_parameters({door: name})


@pytest.mark.parametrize("name", KEPT, ids=_id)
def test_kept_as_it_is(name: str) -> None:
    """Stored as given (in form NFC), and found again under its URL."""
    public_id = read_parameters({"public_id": name}).naming.name(ResourceType.RAW, None, "r", "s")
    assert public_id == unicodedata.normalize("NFC", name)
    path = path_of(_named(public_id), 7, None)
    assert path.isascii()
    assert parse_path(path).candidates == ((_named(public_id), None),)


@pytest.mark.parametrize(("composed", "other"), TWINS)
@pytest.mark.parametrize("door", ["public_id", "folder", "public_id_prefix"])
def test_unicode_twins_are_one_name(composed: str, other: str, door: str) -> None:
    """Neither can exist beside the other and shadow it."""
    one, two = (read_parameters({door: f"x{name}y"}).naming for name in (composed, other))
    assert one == two
    assert one.name(ResourceType.IMAGE, None, "r", "s").startswith(f"x{composed}y")


@pytest.mark.parametrize(("composed", "other"), TWINS)
def test_unicode_twins_have_one_file_name_and_one_url(composed: str, other: str) -> None:
    naming = Naming(use_filename=True, unique_filename=False)
    assert naming.name(ResourceType.RAW, f"x{other}y.txt", "r", "s") == f"x{composed}y.txt"
    by_url = [parse_path(path_of(_named(f"x{name}"), 1, None)).candidates for name in (composed, other)]
    assert by_url == [((_named(f"x{composed}"), None),)] * 2


@pytest.mark.parametrize("twins", [("a", "A"), ("a", "а"), ("Å", "å"), ("1", "１"), ("fi", "ﬁ")])
def test_case_twins_and_look_alikes_are_two_names(twins: tuple[str, str]) -> None:
    assert len({check_public_id(name) for name in twins}) == 2


@pytest.mark.parametrize(
    "escaped", ["%252e%252e%252fetc", "..%252fx", "%25%32%65", "a%2526b", "%5c..", "%00", "a%0d%0ab", "%e2%80%ae"]
)
def test_a_url_is_decoded_once(escaped: str) -> None:
    """What is still escaped, or bad, after that is no name that anything could have."""
    for name, _ in parse_path(f"/demo/raw/upload/v1/{escaped}").candidates:
        with pytest.raises(InvalidParameter):
            check_public_id(name.public_id)


@pytest.mark.parametrize("escaped", ["%c0%af", "%ff", "a%80", "%ed%a0%80", "%f5%80%80%80"])
def test_a_url_that_is_not_utf_8_names_nothing(escaped: str) -> None:
    with pytest.raises(NotFound):
        parse_path(f"/demo/raw/upload/v1/{escaped}")
