"""Copies of a database, as `uponce backup` makes them: what is refused is closed at once."""

from pathlib import Path

import pytest

from tests.adapters.descriptors import links
from tests.contract.databases import open_sqlite
from uponce.adapters.database.sqlite.snapshot import Snapshot
from uponce.core.errors import SettingRefused


@pytest.mark.parametrize("what", ["no database", "a database that takes writes"])
def test_a_file_that_is_no_copy_is_closed_at_once(tmp_path: Path, what: str) -> None:
    """Not when the garbage collector comes to it: since Python 3.13 that is a warning."""
    path = tmp_path / "uponce.db"
    if what == "no database":
        path.write_bytes(b"no database" * 1000)
    else:
        open_sqlite(path).close()
    with pytest.raises(SettingRefused) as refusal:  # which keeps the frames, and so all that they have
        Snapshot(path)
    assert links(path) == [], refusal
