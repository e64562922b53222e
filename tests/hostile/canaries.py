"""Secrets of a server as canaries: none of them may turn up in logs, files, answers or arguments."""

import base64
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from proof.faults.processes import commands
from tests.server import Server

ALLOWED = {"secret.key": {"secret key"}}
"""File names, and the canaries that they are there to hold."""

Canaries = Mapping[str, bytes]


def spelled(secret: bytes) -> list[bytes]:
    """The ways in which a secret could be written. In base64 it may begin at each of three places, as behind a key."""
    return [secret, secret.hex().encode(), *(_in_base64(secret, behind) for behind in range(3))]


def _in_base64(secret: bytes, behind: int) -> bytes:
    """The letters that no byte before or behind the secret has a part in."""
    letters = base64.b64encode(bytes(behind) + secret)
    return letters[-(-8 * behind // 6) : 8 * (behind + len(secret)) // 6]


def found_in(text: bytes, canaries: Canaries) -> set[str]:
    """Names of the canaries that are in the text, in any spelling."""
    return {name for name, secret in canaries.items() for form in spelled(secret) if form in text}


def in_files(folder: Path, canaries: Canaries) -> list[str]:
    """Every canary in a file of the folder that is not there to hold it."""
    leaks = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with suppress(FileNotFoundError):  # the server has just deleted it
            names = found_in(path.read_bytes(), canaries) - ALLOWED.get(path.name, set())
            leaks += [f"{name} in {path.relative_to(folder)}" for name in sorted(names)]
    return leaks


def in_arguments(server: Server, canaries: Canaries) -> list[str]:
    """Every canary in an argument of the server's processes. All users of the machine can read those."""
    return [f"{name} in {line!r}" for line in commands(server.pid).values() for name in found_in(line, canaries)]


def in_texts(texts: Iterable[tuple[str, bytes]], canaries: Canaries) -> list[str]:
    """Every canary in a named text."""
    return [f"{name} in {what}: {text[:300]!r}" for what, text in texts for name in found_in(text, canaries)]
