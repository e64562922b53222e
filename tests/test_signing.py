"""`uponce.sign`: the fields are what the server accepts, wrong calls raise, and importing it is cheap."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from cloudinary.utils import api_sign_request

import uponce
from uponce.core.errors import InvalidParameter, SettingRefused
from uponce.core.parameters import Use, names
from uponce.signing import Params

URL = "cloudinary://123:s%2Fecret@Media?upload_prefix=https://media.example/"
APP = "https://app.example"
SOURCE = Path(uponce.__file__).parents[1]


def test_the_fields_are_signed_as_the_sdk_signs_them() -> None:
    signed = uponce.sign(
        URL,
        resource_type="image",
        folder="cats",
        tags=["tabby", "indoor"],
        context={"alt": "a=b|c"},
        overwrite=False,
        max_bytes=5,
    )

    assert signed["url"] == "https://media.example/v1_1/Media/image/upload"
    fields = dict(signed["fields"])
    signature, api_key = fields.pop("signature"), fields.pop("api_key")
    assert api_key == "123"
    assert api_sign_request(fields, "s/ecret", algorithm="sha256") == signature
    assert fields.pop("timestamp").isdigit()
    assert len(fields.pop("nonce")) == 24
    assert fields == {
        "folder": "cats",
        "tags": "tabby,indoor",
        "context": r"alt=a\=b\|c",
        "overwrite": "0",
        "max_bytes": "5",
    }


def test_two_signatures_of_one_second_differ() -> None:
    assert uponce.sign(URL, timestamp=1)["fields"] != uponce.sign(URL, timestamp=1)["fields"]


def test_the_environment_names_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDINARY_URL", URL)
    assert uponce.sign(nonce="n")["fields"]["api_key"] == "123"
    assert uponce.sign(nonce="n")["fields"]["nonce"] == "n"


@pytest.mark.parametrize(
    "url",
    ["", "https://a:b@c?upload_prefix=x", "cloudinary://123:secret@media", "cloudinary://@m?upload_prefix=x"]
    + [f"cloudinary://123:secret@media?upload_prefix={prefix}" for prefix in ("media.example", "https://", "ftp://a")],
)
def test_a_line_that_lacks_a_part_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(SettingRefused, match="CLOUDINARY_URL must read") as caught:
        uponce.sign(url)
    assert "secret" not in str(caught.value)


def test_what_the_server_would_refuse_raises_when_it_is_signed() -> None:
    with pytest.raises(InvalidParameter, match="max_bytes must be a whole number"):
        uponce.sign(URL, max_bytes=0)
    with pytest.raises(InvalidParameter, match=r"'\.gif' in parameter allowed_formats is no format"):
        uponce.sign(URL, allowed_formats=["jpg", ".gif"])
    with pytest.raises(InvalidParameter, match="Send Unix seconds as plain digits"):
        uponce.sign(URL, timestamp=1767225600.123456)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="context ends with a backslash"):
        uponce.sign(URL, context={"title": "x\\", "moderated": "no"})
    with pytest.raises(InvalidParameter, match="make a name of at least 301 characters, 255 are allowed"):
        uponce.sign(URL, folder="f" * 200, public_id="p" * 100)
    with pytest.raises(uponce.UponceError, match="Unknown parameter foldr"):
        uponce.sign(URL, foldr="x")  # type: ignore[call-arg]
    with pytest.raises(uponce.UponceError, match="file is never signed"):
        uponce.sign(URL, file="x")  # type: ignore[call-arg]


@pytest.mark.parametrize("empty", ["", [], set()])
@pytest.mark.parametrize(
    "name",
    """
    allowed_formats max_bytes max_uses origin overwrite public_id_prefix sha256 timestamp type unique_filename valid_for
    """.split(),
)
def test_an_empty_limit_raises_and_is_not_left_out(name: str, empty: Any) -> None:
    """A setting that is missing, or a list without an entry, must not allow everything."""
    with pytest.raises(InvalidParameter, match=f"Parameter {name} is empty. Sign a value, or leave {name} out"):
        uponce.sign(URL, **{name: empty})


def test_a_prefix_of_slashes_is_an_empty_one() -> None:
    """A program writes it as `f"{folder}/"`, and the folder is missing."""
    with pytest.raises(InvalidParameter, match="Parameter public_id_prefix is empty"):
        uponce.sign(URL, public_id_prefix="/")
    assert uponce.sign(URL, public_id_prefix="cats/")["fields"]["public_id_prefix"] == "cats/"


def test_an_empty_name_or_label_and_none_are_left_out() -> None:
    nothing = Params(folder="", public_id="", tags=[], context={}, nonce="", callback="", notification_url="")
    off: Any = {"max_bytes": None, "origin": None, "public_id_prefix": None}
    assert set(uponce.sign(URL, **nothing, **off)["fields"]) == {"timestamp", "nonce", "signature", "api_key"}


def test_a_set_is_signed_as_a_sorted_list() -> None:
    wanted: Any = {"tags": {"b", "c", "a"}, "allowed_formats": frozenset({"png", "jpg"}), "origin": {APP: 1}.keys()}
    fields = uponce.sign(URL, **wanted)["fields"]
    assert (fields["tags"], fields["allowed_formats"], fields["origin"]) == ("a,b,c", "jpg,png", APP)


@pytest.mark.parametrize("items", [["owner-1,approved"], {"owner-1,approved"}, ("a", "b,")])
@pytest.mark.parametrize("name", ["tags", "allowed_formats", "origin"])
def test_an_item_of_a_list_stays_one_item(name: str, items: Any) -> None:
    """A comma in it would make two, and a user may have chosen the second."""
    with pytest.raises(InvalidParameter, match=f"Parameter {name} has the item '.*,.*', and commas separate items"):
        uponce.sign(URL, **{name: items})
    assert uponce.sign(URL, tags="a,b")["fields"]["tags"] == "a,b"


def test_numbers_and_uuids_are_signed_as_text() -> None:
    name, number = cast(Any, UUID(int=7)), cast(Any, 7)
    fields = uponce.sign(URL, public_id=name, tags=[name, number], context={"user": number})["fields"]
    assert (fields["public_id"], fields["tags"], fields["context"]) == (str(name), f"{name},7", "user=7")


@pytest.mark.parametrize(
    ("name", "value", "type_"),
    [
        ("tags", (tag for tag in "ab"), "generator"),
        ("tags", b"ab", "bytes"),
        ("tags", ["a", None], "NoneType"),
        ("tags", {"a": 1}, "dict"),
        ("tags", [["a"], "b"], "list"),
        ("folder", uponce.sign, "function"),
        ("context", {"alt": None}, "NoneType"),
        ("context", {"alt": ["a"]}, "list"),
    ],
)
def test_a_value_that_is_no_text_raises(name: str, value: Any, type_: str) -> None:
    """Python would print it as `<generator object …>`, and uponce would store that text."""
    with pytest.raises(InvalidParameter, match=f"Parameter {name} has a value of type {type_}. Pass text"):
        uponce.sign(URL, **{name: value})


def test_importing_it_loads_no_framework_and_no_driver() -> None:
    """The whole of its cost: a back end that only signs pays for nothing else."""
    program = "import sys, json, uponce; uponce.sign; print(json.dumps([n.partition('.')[0] for n in sys.modules]))"
    loaded = set(json.loads(subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60)))
    heavy = {"starlette", "uvicorn", "msgspec", "av", "pyvips", "psycopg", "obstore", "typer", "django", "flask"}
    assert not loaded & (heavy | {"asyncio", "cryptography", "urllib3", "sqlite3"})


def test_it_needs_no_other_package() -> None:
    """So `pip install --no-deps` is enough for a back end, whose framework may need another Starlette."""
    program = f"import sys; sys.path.append({str(SOURCE)!r}); import uponce.contrib; print(uponce.sign({URL!r})['url'])"
    alone = subprocess.check_output([sys.executable, "-I", "-S", "-c", program], text=True, timeout=60)
    assert alone.strip() == "https://media.example/v1_1/Media/auto/upload"


def test_every_parameter_that_does_something_can_be_named() -> None:
    """An editor completes the names: a new row of the table of parameters needs its field here."""
    named = names(Use.SPEC, Use.NAMING, Use.SIGNED_ONLY)
    assert sorted(Params.__annotations__) == sorted(named)
