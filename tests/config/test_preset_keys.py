"""Keys in the settings: their texts, and errors that show no secret."""

from pathlib import Path

import pytest

from uponce.cli.address import cloudinary_url
from uponce.config import load, parse_key, preset_keys
from uponce.core.errors import SettingRefused
from uponce.core.values import Algorithm, ApiKey, KeyScope, KeyUses

SECRET = "hidden-hidden-hidden-hidden"


def test_keys_come_from_the_setting_and_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"cloudinary://3:{SECRET}3@dogs?name=shop\n\n")
    environ = {
        "UPONCE_KEYS": f"cloudinary://1:{SECRET}1@Cats?uses=unlimited&scope=all&window=60 cloudinary://2:a%2Fb@cats",
        "UPONCE_KEYS_FILE": str(tmp_path / "keys"),
        "UPONCE_WINDOW": "900",
    }
    given = preset_keys(load(environ))
    assert [each.names_window for each in given] == [True, False, False]
    keys = [each.key for each in given]
    assert [(k.api_key, k.cloud, k.secrets, k.uses, k.scope, k.window, k.name) for k in keys] == [
        ("1", "Cats", (f"{SECRET}1",), "unlimited", "all", 60, ""),
        ("2", "cats", ("a/b",), "once", "upload", 900, ""),
        ("3", "dogs", (f"{SECRET}3",), "once", "upload", 900, "shop"),
    ]


@pytest.mark.parametrize(
    ("option", "algorithms"),
    [
        ("", tuple(Algorithm)),
        ("?signature_algorithm=sha1", tuple(Algorithm)),
        ("?signature_algorithm=sha256", (Algorithm.SHA256,)),
    ],
)
def test_a_key_is_of_sha256_only_if_its_text_says_so(option: str, algorithms: tuple[Algorithm, ...]) -> None:
    assert parse_key(f"cloudinary://1:{SECRET}@cats{option}", 600, "here").key.algorithms == algorithms


@pytest.mark.parametrize("algorithms", [tuple(Algorithm), (Algorithm.SHA256,)], ids=str)
def test_the_url_that_a_command_prints_for_a_key_describes_that_key(algorithms: tuple[Algorithm, ...]) -> None:
    key = ApiKey("1", "cats", (SECRET,), KeyUses.ONCE, KeyScope.UPLOAD, 600, algorithms=algorithms)
    assert parse_key(cloudinary_url(key, "http://127.0.0.1:8000"), 600, "here").key == key


@pytest.mark.parametrize("value", ["md5", "SHA256", "sha1,sha256", ""])
def test_a_key_of_an_unknown_algorithm_is_refused(value: str) -> None:
    with pytest.raises(SettingRefused, match=r"^here, key 1: .*, signature_algorithm sha1 or sha256\.$"):
        parse_key(f"cloudinary://1:{SECRET}@cats?signature_algorithm={value}", 600, "here")


def test_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    keys, config = tmp_path / "keys", tmp_path / "uponce.toml"
    keys.write_text(f"\ufeffcloudinary://3:{SECRET}@dogs", "utf-8")
    config.write_text(f"\ufeffkeys_file = '{keys}'", "utf-8")
    (given,) = preset_keys(load({"UPONCE_CONFIG": str(config)}))
    assert given.key.api_key == "3"


@pytest.mark.parametrize(
    "line",
    [
        f"cloudinary://1:{SECRET}",
        f"cloudinary://1:{SECRET}@[cats",
        f"cloudinary://1:{SECRET}@cats/dogs",
        f"cloudinary://:{SECRET}@cats",
        f"https://1:{SECRET}@cats",
        f"cloudinary://1:{SECRET}@cats?uses=twice",
        f"cloudinary://1:{SECRET}@cats?window=long",
        f"cloudinary://1:{SECRET}@cats?usage=once",
        f"cloudinary://1:{SECRET}@cats?signature_algorithm=md5",
    ],
)
def test_an_error_in_a_key_names_the_setting_and_not_the_secret(tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text(line)
    for environ in ({"UPONCE_KEYS": line}, {"UPONCE_KEYS_FILE": str(tmp_path / "keys")}):
        with pytest.raises(SettingRefused) as refused:
            preset_keys(load(environ))
        assert refused.value.message.startswith(next(iter(environ)))
        assert SECRET not in refused.value.message


def test_a_file_of_keys_that_is_not_there() -> None:
    with pytest.raises(SettingRefused, match=r"^UPONCE_KEYS_FILE=/no/such cannot be read: "):
        preset_keys(load({"UPONCE_KEYS_FILE": "/no/such"}))


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_a_setting_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    """Such as a variable that a compose file takes from nowhere. The first start would make keys and print them."""
    file = tmp_path / "keys"
    file.write_text(text)
    for environ, name in (({"UPONCE_KEYS": text}, "KEYS"), ({"UPONCE_KEYS_FILE": str(file)}, f"KEYS_FILE={file}")):
        with pytest.raises(SettingRefused) as refused:
            preset_keys(load(environ))
        assert refused.value.message == f"UPONCE_{name} has no key. Write a key there, or remove the setting."
