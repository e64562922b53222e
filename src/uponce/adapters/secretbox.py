"""API secrets at rest: AES-256-GCM, bound to the row they belong to.

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

from uponce.adapters.system import sync_file, sync_folder
from uponce.core.errors import SettingRefused

KEY_BYTES = 32
_NONCE_BYTES = 12
_MAX_FILE_BYTES = 4096
_VERSION = b"\x01"


class AesSecretBox:
    """version byte ‖ 96-bit random nonce ‖ ciphertext and tag, with the context as associated data."""

    def __init__(self, key: bytes) -> None:
        self._aes = AESGCM(key)

    def encrypt(self, plain: str, context: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._aes.encrypt(nonce, plain.encode(), context.encode())

    def decrypt(self, cipher: bytes, context: str) -> str:
        """SettingRefused when the key is another one, or the text belongs to another row."""
        nonce, sealed = cipher[1 : 1 + _NONCE_BYTES], cipher[1 + _NONCE_BYTES :]
        try:
            if cipher[:1] != _VERSION:
                raise InvalidTag
            return self._aes.decrypt(nonce, sealed, context.encode()).decode()
        except (InvalidTag, ValueError):
            raise SettingRefused(
                f"The secret of API key {context} cannot be decrypted. Give the UPONCE_SECRET_KEY, or the secret.key "
                "file, with which this database was made."
            ) from None


def key_from_text(text: str) -> bytes:
    """UPONCE_SECRET_KEY: 64 hex digits, or base64 of 32 bytes."""
    for decode in (bytes.fromhex, lambda t: base64.b64decode(t, validate=True)):
        try:
            key = decode(text.strip())
        except (ValueError, binascii.Error):
            continue
        if len(key) == KEY_BYTES:
            return key
    raise SettingRefused(
        "UPONCE_SECRET_KEY must be 64 hex digits, or base64 of 32 bytes. `openssl rand -hex 32` makes one."
    )


def load_or_create_key(path: Path) -> bytes:
    """The key in a file that only its owner may read; made on first use."""
    try:
        if not path.exists():
            _create(path)
        return _load(path)
    except OSError as error:
        raise SettingRefused(
            f"The secret key file {path} cannot be used: {error.strerror}. Make its folder readable and writable for "
            "the server, or set UPONCE_SECRET_KEY."
        ) from error


def _create(path: Path) -> None:
    """Whole or not at all: half a key after a crash would look like a damaged one for ever after."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            sync_file(file.fileno())
        with suppress(FileExistsError):  # another process was faster: its key counts
            path.hardlink_to(draft)
    finally:
        draft.unlink()
    sync_folder(path.parent)


def _load(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        key = file.read(_MAX_FILE_BYTES)
    if mode & 0o077:
        raise SettingRefused(f"{path} can be read by others (mode {mode:o}). Run: chmod 600 {path}")
    if len(key) != KEY_BYTES:
        raise SettingRefused(
            f"{path} holds {len(key)} bytes instead of {KEY_BYTES}. Restore it from a backup: without it the API "
            "secrets in the database cannot be read."
        )
    return key
