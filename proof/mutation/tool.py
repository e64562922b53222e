"""Runs mutmut on the modules that pyproject.toml names, and reads what became of each mutant."""

import ast
import difflib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).parents[2]
MUTANTS = ROOT / "mutants"
_SOURCES = MUTANTS / "src" / "uponce"
_AROUND = 24


@dataclass(frozen=True, slots=True)
class Mutant:
    """What was changed, as normalized source: the lines that differ. `name` and `status` are mutmut's."""

    name: str
    file: str
    function: str
    was: str
    became: str
    status: str

    @property
    def is_killed(self) -> bool:
        """Return whether the mutant is killed. A time limit counts: no test passed."""
        return self.status in ("killed", "timeout")

    @property
    def change(self) -> str:
        """Return what differs, with a little text around it."""
        before = _equal(self.was, self.became)
        after = _equal(self.was[before:][::-1], self.became[before:][::-1])
        return " → ".join(
            text[max(0, before - _AROUND) : len(text) - after + _AROUND].strip() or "nothing"
            for text in (self.was, self.became)
        )

    @property
    def is_respelling(self) -> bool:
        """Return whether only a text's letter case was changed, or marks were set around it."""
        return self.was.casefold() == self.became.replace("XX", "").casefold()


def _equal(one: str, other: str) -> int:
    """Return how many characters at the beginning are equal."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def tool() -> str:
    return f"mutmut {version('mutmut')}"


def run(files: Sequence[str], processes: int, scratch: Path) -> None:
    """Run all mutants of these files, in a copy of the project. Without files: of all files that pyproject.toml names.

    The copy is in `mutants/`. Results are kept there for functions that have not changed, and the mutants that survived
    are tried again. Without the folder, all begins again.
    """
    survived = {mutant.name for mutant in results() if not mutant.is_killed}
    _mutmut([f"uponce.{file.removesuffix('.py').replace('/', '.')}.*" for file in files], processes, scratch)
    again = [mutant.name for mutant in results() if not mutant.is_killed and mutant.name in survived]
    if again and not files:
        _mutmut(again, processes, scratch)


def _mutmut(names: Sequence[str], processes: int, scratch: Path) -> None:
    """Those that are named run in any case, else those that never ran.

    mutmut ends early when a server dies that the tests have started in its own process, and goes on where it was when
    it is called again.
    """
    launcher = str(Path(__file__).with_name("launch.py"))
    command = [sys.executable, launcher, "run", "--max-children", str(processes), *names]
    while True:
        before = _tried()
        done = subprocess.run(command, check=False, cwd=ROOT, env={**os.environ, "TMPDIR": str(scratch)})
        if done.returncode == 0:
            return
        if _tried() == before:
            done.check_returncode()


def _tried() -> int:
    return sum(code is not None for meta in _SOURCES.rglob("*.py.meta") for code in _codes(meta).values())


def untouched() -> Mapping[str, Sequence[str]]:
    """Return for each file its functions that have no mutant, whatever the reason."""
    changed = {(mutant.file, mutant.function) for mutant in results()}
    return {
        file: [
            name
            for name in _names(ast.parse((ROOT / "src/uponce" / file).read_text()).body)
            if (file, name) not in changed
        ]
        for file in {file for file, _ in changed}
    }


def _names(body: Sequence[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name
        elif isinstance(statement, ast.ClassDef):
            yield from (f"{statement.name}.{name}" for name in _names(statement.body))


def results() -> list[Mutant]:
    """Return the mutants of every file that has any."""
    return [mutant for meta in sorted(_SOURCES.rglob("*.py.meta")) for mutant in _mutants(meta)]


def _mutants(meta: Path) -> Iterator[Mutant]:
    source = meta.with_suffix("")
    codes = _codes(meta)
    if not codes:
        return
    functions = dict(_functions(ast.parse(source.read_text()).body))
    file = str(source.relative_to(_SOURCES))
    for key, code in codes.items():
        name = key.rpartition(".")[2]
        mangled = name.rpartition("__mutmut_")[0]
        was, became = _difference(functions[f"{mangled}__mutmut_orig"], functions[name])
        yield Mutant(key, file, _plain(mangled), was, became, status_by_exit_code[code])


def _codes(meta: Path) -> Mapping[str, int | None]:
    codes: Mapping[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
    return codes


def _functions(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name, _body(statement)
        elif isinstance(statement, ast.ClassDef):
            yield from _functions(statement.body)


def _body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Without its name, in which a mutant and its original always differ."""
    named = ast.unparse(function)
    return named.replace(function.name, "", 1)


def _difference(original: str, mutant: str) -> tuple[str, str]:
    """Return the lines that differ, without their indentation."""
    lines = list(difflib.unified_diff(original.splitlines(), mutant.splitlines(), n=0, lineterm=""))[2:]
    was, became = ("\n".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return was, became


def _plain(mangled: str) -> str:
    """`x_utc` → `utc`, `xǁNamingǁname` → `Naming.name`."""
    return mangled.removeprefix("x").removeprefix("_").removeprefix("ǁ").replace("ǁ", ".")
