"""API secrets at rest: AES-256-GCM, each bound to its row.

Cloudinary's signatures need the plain secret on the server, so it cannot be stored as a hash.
"""

import base64
import binascii
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from uponce.adapters.files import exists, link, make_folder, write_whole
from uponce.core.errors import SettingRefused

KEY_BYTES = 32
_NONCE_BYTES = 12
_MAX_FILE_BYTES = 4096
_VERSION = b"\x01"


class AesSecretBox:
    """Encrypts API secrets to: version byte ‖ 96-bit random nonce ‖ ciphertext and tag. The context is associated data.

    `key` is the key itself, or the path of its file. The file is read at the first use, and when the key does not fit.
    Only `make_key` makes the file.
    `shown` is its name in errors.
    """

    def __init__(self, key: bytes | Path, shown: str = "UPONCE_SECRET_KEY") -> None:
        self._path = key if isinstance(key, Path) else None
        self._key = key if isinstance(key, bytes) else None
        self._aes = AESGCM(key) if isinstance(key, bytes) else None
        self.shown = shown if self._path is None else str(self._path)

    def key(self) -> bytes:
        """Return the key. Raise SettingRefused if its file cannot be used."""
        self._ready()
        assert self._key is not None
        return self._key

    def make_key(self) -> None:
        """Make the key file unless it exists. Only for a database without API keys: see `adapters/database/keys.py`."""
        if self._path is not None:
            create_key(self._path)

    def encrypt(self, plain: str, context: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._ready().encrypt(nonce, plain.encode(), context.encode())

    def decrypt(self, cipher: bytes, context: str) -> str:
        """Return the text. Raise SettingRefused if another key encrypted it, or if it belongs to another row.

        `uponce keys renew` replaces the file beside running servers. If the new key fits, it counts from now on.
        """
        text = _opened(self._ready(), cipher, context)
        if text is None and self._path is not None:
            with suppress(SettingRefused):
                key = load_key(self._path)
                text = _opened(AESGCM(key), cipher, context)
                if text is not None:
                    self._key, self._aes = key, AESGCM(key)
        if text is None:
            raise SettingRefused(
                f"The secret of {context} cannot be decrypted with {self.shown}: another key encrypted it. {_CURE}"
            )
        return text

    def _ready(self) -> AESGCM:
        if self._aes is None:
            assert self._path is not None
            self._key = load_key(self._path)
            self._aes = AESGCM(self._key)
        return self._aes


def _opened(aes: AESGCM, cipher: bytes, context: str) -> str | None:
    """Return the text, or None if another key encrypted it, or if it belongs to another row."""
    nonce, sealed = cipher[1 : 1 + _NONCE_BYTES], cipher[1 + _NONCE_BYTES :]
    if cipher[:1] != _VERSION:
        return None
    try:
        return aes.decrypt(nonce, sealed, context.encode()).decode()
    except (InvalidTag, ValueError):
        return None


_CURE = (
    "Copy secret.key from a backup of this server into the data folder (mode 0600, with the owner of the folder), or "
    "set UPONCE_SECRET_KEY to the key that this server used. If no copy of it exists, `uponce keys renew` replaces "
    "the API secrets."
)


def key_from_text(text: str) -> bytes:
    """Return the key in UPONCE_SECRET_KEY: 64 hex digits, or base64 of 32 bytes. Raise SettingRefused if not."""
    for decode in (bytes.fromhex, lambda t: base64.b64decode(t, validate=True)):
        try:
            key = decode(text.strip())
        except (ValueError, binascii.Error):
            continue
        if len(key) == KEY_BYTES:
            return key
    raise SettingRefused(
        "UPONCE_SECRET_KEY must be 64 hex digits, or base64 of 32 bytes. `openssl rand -hex 32` makes such a key."
    )


def load_key(path: Path) -> bytes:
    """Return the key in a file that only its owner may read. Raise SettingRefused if it cannot be used."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            key = file.read(_MAX_FILE_BYTES)
    except FileNotFoundError:
        raise SettingRefused(
            f"The secret key file {path} is missing. The API secrets in the database cannot be read without it, and "
            f"a new key would not read them. {_CURE}"
        ) from None
    except OSError as error:
        raise _unusable(path, error) from error
    if mode & 0o077:
        raise SettingRefused(
            f"Other users can read {path} (mode {mode:o}). Run: chmod 600 {path}. If the disk has no modes, as FAT, "
            "mount it with umask=077, or set UPONCE_SECRET_KEY"
        )
    if len(key) != KEY_BYTES:
        raise SettingRefused(
            f"{path} holds {len(key)} bytes instead of {KEY_BYTES}, so the API secrets in the database cannot be read. "
            f"{_CURE}"
        )
    return key


def create_key(path: Path) -> None:
    """Make a key in a file that only its owner may read, unless the file exists. The key is durable on return.

    A crash leaves the whole file or none: half a key would look like a damaged one. On a disk without hard links, the
    transaction that stores the first API key keeps two processes apart.
    """
    try:
        if not exists(path):
            make_folder(path.parent)
            write_whole(path, [secrets.token_bytes(KEY_BYTES)], link)  # the key of a faster process counts
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> SettingRefused:
    return SettingRefused(
        f"The secret key file {path} cannot be used: {error.strerror}. Let the server read and write the folder "
        f"{path.parent}, or set UPONCE_SECRET_KEY."
    )
