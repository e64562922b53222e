"""The statements that a mutant of SQL changes."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from proof.mutation.by_hand import HandMade
from uponce.adapters.database import statements
from uponce.adapters.database.statements import Statement, load

SQL = Path(statements.__file__).with_name("sql")


def changed(engine: str, mutant: HandMade, monkeypatch: pytest.MonkeyPatch, scratch: Path) -> Mapping[str, Statement]:
    """Return the statements of the engine that are not those of today, by name. At least one is."""
    shutil.copytree(SQL, scratch / "sql")
    file = scratch / "sql" / Path(mutant.file).name
    file.write_text(mutant.apply(file.read_text()))
    originals = load(engine)
    monkeypatch.setattr(statements, "resources", SimpleNamespace(files=lambda _: scratch))
    found = {name: each for name, each in load.__wrapped__(engine).items() if each != originals[name]}
    assert found
    return found
