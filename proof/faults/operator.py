"""What an operator would run after an accident, in this process: a sweep, then the check of the whole store."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from unittest.mock import patch

from proof.faults.place import Place, place_of
from tests.server import Key
from uponce.app import manage_keys
from uponce.app.fsck import Severity, fsck
from uponce.app.services import Services
from uponce.app.sweep import sweep
from uponce.config import Settings
from uponce.config.rules import DAY
from uponce.core.values import KeyScope
from uponce.wiring import Backend, opened

MOST_EFFECTS = 10_000


def give_key(data_dir: Path) -> None:
    """Put the secret key of the suite's own databases where the commands look for it."""
    path = data_dir / "secret.key"
    path.write_bytes(bytes(32))
    path.chmod(0o600)


def settings(where: Path | Place) -> Settings:
    return place_of(where).settings


def recover(where: Path | Place) -> Counter[str]:
    """Do what `uponce sweep --grace 0` does, on each server that spools uploads. Return what was removed."""
    swept: Counter[str] = Counter()
    for part in place_of(where).parts:
        with _backend(part) as backend:
            swept.update(asdict(asyncio.run(sweep(backend.services, grace_seconds=0, audit_seconds=DAY))))
    return swept


def check(where: Path | Place) -> list[str]:
    """Return what `uponce fsck --deep --grace 0` finds, without warnings: these are normal where clocks are stepped."""

    async def examine() -> list[str]:
        report = await fsck(backend.services, grace_seconds=0, audit_seconds=DAY, deep=True)
        return [
            f"{finding.kind.name} {finding.subject} {finding.detail}"
            for finding in chain.from_iterable(report.findings.values())
            if finding.kind.severity is not Severity.WARNING
        ]

    with _backend(place_of(where).parts[0]) as backend:
        return asyncio.run(examine())


def hasten(where: Path | Place) -> int:
    """Do what `uponce outbox retry` does for each effect by its number: all are due at once. Return their number."""

    async def retry(services: Services) -> int:
        effects = await services.database.list_effects(MOST_EFFECTS)
        return sum([await services.database.retry_effects(effect.id) for effect in effects])

    with _backend(place_of(where).parts[0]) as backend:
        return asyncio.run(retry(backend.services))


def add_deleting_key(where: Path | Place, cloud: str) -> Key:
    """Return what `uponce keys create --scope all` makes: its signatures work once, for an upload or a deletion."""
    with _backend(place_of(where).parts[0]) as backend:
        key = manage_keys.new_key(backend.services, cloud, scope=KeyScope.ALL)
        asyncio.run(backend.services.database.add_key(key))
        return Key(key.api_key, key.secrets[0])


def rotate_key(where: Path | Place, key: Key, overlap: int) -> Key:
    """Return what `uponce keys rotate --overlap` makes."""
    with _backend(place_of(where).parts[0]) as backend:
        return Key(key.key, asyncio.run(manage_keys.rotate_key(backend.services, key.key, overlap)).secrets[0])


@contextmanager
def _backend(place: Place) -> Iterator[Backend]:
    # Credentials are read there. The patch ends with a refill of all, so two threads must not patch nothing at once.
    credentials = patch.dict(os.environ, place.environment) if place.environment else nullcontext()
    with credentials, opened(place.settings) as backend:
        yield backend
