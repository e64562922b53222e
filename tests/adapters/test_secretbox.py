"""API secrets at rest: what is bound to what, and the file that holds the key."""

import base64
import errno
import multiprocessing
import os
import stat
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from uponce.adapters import secretbox
from uponce.adapters.secretbox import KEY_BYTES, AesSecretBox, create_key, key_from_text, load_key
from uponce.core.errors import SettingRefused

KEY = bytes(range(32))
SECRET = "größe/äß 図"


def test_what_was_encrypted_comes_back() -> None:
    box = AesSecretBox(KEY)
    assert AesSecretBox(KEY).decrypt(box.encrypt(SECRET, "demo/1"), "demo/1") == SECRET


def test_equal_secrets_look_different_and_show_nothing() -> None:
    """One version byte, a nonce of 12, the text, a tag of 16."""
    box = AesSecretBox(KEY)
    ciphers = {box.encrypt("the-secret", "demo/1") for _ in range(100)}
    assert len(ciphers) == len({cipher[1:13] for cipher in ciphers}) == 100
    assert {(cipher[0], len(cipher)) for cipher in ciphers} == {(1, 1 + 12 + len("the-secret") + 16)}
    assert not any(b"secret" in cipher for cipher in ciphers)


def test_a_secret_does_not_decrypt_in_another_row() -> None:
    cipher = AesSecretBox(KEY).encrypt(SECRET, "demo/1")
    with pytest.raises(SettingRefused, match="UPONCE_SECRET_KEY"):
        AesSecretBox(KEY).decrypt(cipher, "demo/2")


def test_another_key_is_refused_with_the_cure() -> None:
    cipher = AesSecretBox(KEY).encrypt(SECRET, "demo/1")
    with pytest.raises(SettingRefused, match=r"Copy secret\.key from a backup.*`uponce keys renew`") as refused:
        AesSecretBox(bytes(32)).decrypt(cipher, "demo/1")
    assert SECRET not in str(refused.value)


def test_a_missing_file_is_refused_by_name_and_never_made_by_reading_or_writing(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    cipher = AesSecretBox(KEY).encrypt(SECRET, "demo/1")
    box = AesSecretBox(path)
    for use in (lambda: box.decrypt(cipher, "demo/1"), lambda: box.encrypt(SECRET, "demo/1"), box.key):
        with pytest.raises(SettingRefused, match=f"{path} is missing.*cannot be read without it.*from a backup"):
            use()
    assert not path.exists()
    box.make_key()
    assert box.decrypt(box.encrypt(SECRET, "demo/1"), "demo/1") == SECRET
    assert box.key() == path.read_bytes()


def test_a_running_server_takes_the_new_key_of_a_replaced_file_if_that_key_fits(tmp_path: Path) -> None:
    """`uponce keys renew` makes a new file. A wrong file beside a damaged row replaces no good key."""
    path = tmp_path / "secret.key"
    create_key(path)
    server = AesSecretBox(path)
    old, lost = server.encrypt(SECRET, "demo/1"), path.read_bytes()
    path.unlink()
    with pytest.raises(SettingRefused, match="another key encrypted it"):
        server.decrypt(AesSecretBox(KEY).encrypt(SECRET, "demo/1"), "demo/1")
    create_key(path)
    with pytest.raises(SettingRefused, match="another key encrypted it"):
        server.decrypt(b"damaged", "demo/2")
    assert (server.decrypt(old, "demo/1"), server.key()) == (SECRET, lost)
    renewed = AesSecretBox(path).encrypt(SECRET, "demo/1")
    assert server.decrypt(renewed, "demo/1") == SECRET
    assert server.key() == path.read_bytes()
    assert AesSecretBox(path).decrypt(server.encrypt(SECRET, "demo/2"), "demo/2") == SECRET


def test_every_changed_bit_and_every_cut_is_noticed() -> None:
    box = AesSecretBox(KEY)
    cipher = box.encrypt("the-secret", "demo/1")
    changed = [
        cipher[:place] + bytes([cipher[place] ^ 1 << bit]) + cipher[place + 1 :]
        for place in range(len(cipher))
        for bit in range(8)
    ]
    cut = [cipher[:length] for length in range(len(cipher))]
    for broken in [*changed, *cut, cipher + b"\0"]:
        with pytest.raises(SettingRefused):
            box.decrypt(broken, "demo/1")


@pytest.mark.parametrize(
    "text",
    [KEY.hex(), KEY.hex().upper(), f" {KEY.hex()}\n", base64.b64encode(KEY).decode()],
    ids=["hex", "upper case", "white space", "base64"],
)
def test_the_setting_is_hex_or_base64(text: str) -> None:
    assert key_from_text(text) == KEY


WRONG = ["", "secret", KEY.hex()[:-2], KEY.hex() + "00", "g" * 64, base64.b64encode(KEY[:31]).decode(), "ä" * 64, "\0"]


@pytest.mark.parametrize("text", WRONG)
def test_any_other_setting_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(SettingRefused, match="64 hex digits") as refused:
        key_from_text(text)
    assert not text or text not in str(refused.value)


def test_the_key_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "data" / "secret.key"
    before = os.umask(0)
    try:
        create_key(path)
        key = load_key(path)
    finally:
        os.umask(before)
    assert len(key) == KEY_BYTES and len(set(key)) > 8
    create_key(path)
    assert path.read_bytes() == load_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_key_is_on_the_disk_before_its_name_and_the_name_before_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in between leaves no key rather than half of one."""
    path = tmp_path / "secret.key"
    synced: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    create_key(path)
    assert synced == [(False, False), (True, True)]


def test_the_folder_of_a_key_is_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
    create_key(tmp_path / "data" / "secret.key")
    assert tmp_path.stat().st_ino in synced


def test_processes_that_start_together_get_one_key(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}" / "secret.key" for number in range(20)]
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        keys = [list(pool.map(_create_and_load, [path] * 4)) for path in paths]
    assert [len(set(same)) for same in keys] == [1] * 20
    assert len({same[0] for same in keys}) == 20


def _create_and_load(path: Path) -> bytes:
    create_key(path)
    return load_key(path)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_key_is_made_and_kept_where_files_have_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """FAT and some network shares."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "secret.key"
    key = _create_and_load(path)
    with monkeypatch.context() as patched:
        patched.setattr(secretbox, "exists", lambda _: False)  # another process makes the key after this look
        create_key(path)
    assert (load_key(path), len(key), stat.S_IMODE(path.stat().st_mode)) == (key, KEY_BYTES, 0o600)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_a_key_that_others_can_read_is_refused_with_the_cure(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret.key"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(SettingRefused, match=f"chmod 600 {path}. If the disk has no modes.*umask=077"):
        _create_and_load(path)


@pytest.mark.parametrize("size", [0, 31, 33, 5000])
def test_a_damaged_key_is_refused_and_not_replaced(tmp_path: Path, size: int) -> None:
    path = tmp_path / "secret.key"
    create_key(path)
    path.write_bytes(bytes(size))
    with pytest.raises(SettingRefused, match="instead of 32"):
        _create_and_load(path)
    assert path.read_bytes() == bytes(size)


def test_what_the_disk_refuses_is_a_setting_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir(mode=0o700)
    for path in (tmp_path / "file" / "secret.key", tmp_path / "folder"):
        with pytest.raises(SettingRefused, match="cannot be used"):
            _create_and_load(path)
    monkeypatch.setattr(os, "fsync", _broken_disk)
    with pytest.raises(SettingRefused, match="cannot be used"):
        create_key(tmp_path / "folder" / "secret.key")
    assert list((tmp_path / "folder").iterdir()) == []


def _broken_disk(descriptor: int) -> None:
    raise OSError(5, "Input/output error")
