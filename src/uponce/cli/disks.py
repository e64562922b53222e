"""The local folders that a server writes to, and whether they last."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from uponce.adapters.files import exists
from uponce.adapters.system import file_system_of, lacks_journal
from uponce.app.check import check_lasting
from uponce.config import Settings
from uponce.wiring import sqlite_path


def lasting(settings: Settings) -> Sequence[Path]:
    """Return the folders with what a server must not lose: database, media and secret key."""
    folders = [] if settings.secret_key is not None else [settings.data_dir]
    if settings.database_url.startswith("sqlite:"):
        folders.append(sqlite_path(settings.database_url).parent)
    if settings.storage_folder is not None:
        folders.append(settings.storage_folder)
    return folders


def one_of_each_disk(folders: Sequence[Path]) -> Sequence[Path]:
    """Return the first folder on each disk. A folder that does not exist counts as the one that it will be in."""
    by_disk: dict[int, Path] = {}
    for folder in map(nearest, folders):
        by_disk.setdefault(folder.stat().st_dev, folder)
    return [*by_disk.values()]


def nearest(place: Path) -> Path:
    """Return the folder if it exists, else the first existing folder above it."""
    return next(path for path in (place, *place.parents) if exists(path))


def fleeting(settings: Settings) -> Iterator[str]:
    """Yield a warning for each disk that may lose what a server must not lose."""
    for folder in one_of_each_disk(lasting(settings)):
        warning = check_lasting(str(folder), file_system_of(folder), has_journal=not lacks_journal(folder))
        if warning is not None:
            yield warning
