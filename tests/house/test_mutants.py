"""The mutation check itself: what it complains of, and that its mutants fit the code of today."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mutmut.mutation.file_mutation import mutate_file_contents

from proof.mutation import launch, page, survivors, tool, trial
from proof.mutation.__main__ import complaints, described, main
from proof.mutation.by_hand import BY_HAND, SQLITE, HandMade
from proof.mutation.tool import ROOT, Mutant

KILLED = Mutant("m", "core/spans.py", "merged", "if a < b:", "if a <= b:", "killed")
SURVIVED = replace(KILLED, status="survived")
WHERE = "core/spans.py merged"


@pytest.mark.parametrize("mutant", BY_HAND, ids=lambda mutant: f"{mutant.file}: {mutant.name}")
def test_a_mutant_made_by_hand_changes_one_place(mutant: HandMade) -> None:
    source = (ROOT / "src/uponce" / mutant.file).read_text()
    assert mutant.apply(source) != source


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, str]]:
    """The table of reasons, empty."""
    empty: dict[str, dict[str, str]] = {}
    monkeypatch.setattr(survivors, "SURVIVORS", empty)
    return empty


def test_a_survivor_needs_a_reason(table: dict[str, dict[str, str]]) -> None:
    ran = [*[KILLED] * 24, SURVIVED]
    assert complaints(ran, {}, partly=False) == [f"no reason: {WHERE}: {SURVIVED.change}"]
    table[WHERE] = {SURVIVED.change: "equivalent"}
    assert complaints(ran, {}, partly=False) == []


def test_a_reason_needs_a_survivor(table: dict[str, dict[str, str]]) -> None:
    """Or the table would keep reasons for mutants that the tests kill."""
    table[WHERE] = {SURVIVED.change: "equivalent"}
    assert complaints([KILLED], {}, partly=False) == [f"killed, yet it has a reason: {WHERE}: {SURVIVED.change}"]
    assert complaints([KILLED], {}, partly=True) == []


def test_96_of_100_have_to_be_killed(table: dict[str, dict[str, str]]) -> None:
    """A time limit kills; a mutant that no test reaches does not."""
    table[WHERE] = {SURVIVED.change: "equivalent"}
    assert complaints([*[replace(KILLED, status="timeout")] * 24, SURVIVED], {}, partly=True) == []
    (told,) = complaints([*[KILLED] * 23, SURVIVED, replace(SURVIVED, status="no tests")], {}, partly=True)
    assert told == "92.0 % are killed, 96 % are asked for"


def test_each_one_made_by_hand_has_to_be_killed() -> None:
    first, second = BY_HAND[:2]
    assert complaints([KILLED], {first: "", second: "tests/core::test"}, partly=True) == [
        f"survived: {first.file}: {first.name}"
    ]


@pytest.mark.parametrize(
    ("file", "was", "became", "excused"),
    [
        ("adapters/database/sqlite/ledger.py", "run('SELECT a')", "run(None)", False),
        ("core/spans.py", "raise EmptyFile('Send it.')", "raise EmptyFile('XXSend it.XX')", True),
        ("core/spans.py", "raise EmptyFile('Send it.')", "raise EmptyFile(None)", False),
        ("core/spans.py", "return field('a')", "return field('A')", False),
        ("core/spans.py", "key = 'a'", "key = 'A'", False),
        ("core/spans.py", "a = row['a']", "a = row['A']", False),
        ("adapters/database/keys.py", "a = row['a']", "a = row['A']", False),
        ("adapters/database/keys.py", "a = row['a']", "a = row['XXaXX']", False),
        ("adapters/database/keys.py", "zip(a, b, strict=True)", "zip(a, b)", True),
    ],
)
def test_only_what_no_test_can_notice_is_excused_by_rule(
    table: dict[str, dict[str, str]], file: str, was: str, became: str, excused: bool
) -> None:
    assert (survivors.reason(Mutant("m", file, "f", was, became, "survived")) is not None) is excused


CODE = """
@operation(writes=True)
def commit(now):
    yield now + 1

class Series:
    @property
    def end(self):
        return self.start + 1

    @cached
    def size(self):
        return self.end + 1
"""


def test_operations_and_properties_have_mutants() -> None:
    """Only the function that switches between the mutants is decorated."""
    made = mutate_file_contents("series.py", CODE)
    assert {"operation", "property"} == launch.DECORATORS
    assert {name.partition("__mutmut")[0] for name in made.mutant_names} == {"x_commit", "xǁSeriesǁend"}
    assert (made.code.count("@operation(writes=True)"), made.code.count("@property"), made.code.count("@cached")) == (
        1,
        1,
        1,
    )


def _recorded(file: str, commit: str) -> dict[str, Any]:
    mutants = [replace(KILLED, file=file), replace(SURVIVED, file=file)]
    record = {**described(mutants, {}, {file: ["odd"]})}
    record["files"][file]["commit"] = commit
    return record


def test_a_run_of_some_files_replaces_their_figures_alone() -> None:
    by_hand = described([], {BY_HAND[0]: ""}, {})["by hand"]
    before = {**_recorded("core/spans.py", "first"), "by hand": by_hand}
    both = page.merged(before, _recorded("core/ranges.py", "second"))
    again = page.merged(both, _recorded("core/ranges.py", "third"))
    commits = {file: found["commit"] for file, found in again["files"].items()}
    assert commits == {"core/ranges.py": "third", "core/spans.py": "first"}
    assert again["by hand"] == by_hand
    assert again["files"]["core/ranges.py"]["counts"] == {"killed": 1, "survived": 1}


def test_a_file_that_is_gone_has_no_figures() -> None:
    record = page.merged(_recorded("core/no_such.py", "first"), _recorded("core/ranges.py", "second"))
    assert list(record["files"]) == ["core/ranges.py"]


def test_a_mutant_made_by_hand_that_is_gone_is_forgotten_and_a_new_one_is_not_run_yet() -> None:
    """The record of an old run must not speak for the code of today."""
    first = BY_HAND[0]
    gone = replace(first, name="no such")
    before = described([], {first: "tests/core::test", gone: "tests/core::test"}, {})
    record = page.merged(before, _recorded("core/ranges.py", "second"))
    assert [row["name"] for row in record["by hand"]] == [first.name]
    text = page.tables(before)
    assert "1 of 1 made by hand" in text and "killed by `tests/core::test`" in text
    assert f"{len(BY_HAND) - 1} of {len(BY_HAND)} made by hand have not been run yet" in text.replace("\n", " ")


def test_a_quoted_variant_counts_once_it_has_run_on_each_database() -> None:
    first, second = BY_HAND[:2]
    on_both = [mutant for mutant in BY_HAND if mutant.name == first.name]
    assert len(on_both) == 2
    for mutants, ran in (on_both[:1], 0), (on_both, 1):
        told = page.quoted(described([], dict.fromkeys(mutants, "tests::test"), {}), [first.name, second.name, "none"])
        assert "the 2 broken variants" in told and f"{ran} of them have a recorded run, and {2 - ran} have none" in told


def test_a_later_run_of_some_made_by_hand_replaces_these_alone() -> None:
    first, second = BY_HAND[:2]
    before = described([], {first: "", second: "tests::test"}, {})
    assert page.killed(before) == {second.key}
    record = page.merged(before, described([], {first: "tests::test"}, {}))
    assert [(row["name"], row["killed"]) for row in record["by hand"]] == [(first.name, True), (second.name, True)]


def test_a_run_of_what_is_left_runs_nothing_else_and_keeps_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = BY_HAND
    before = described([], {first: "", **dict.fromkeys(others, "tests::test")}, {})
    for row in before["by hand"]:
        row["commit"] = "before"
    monkeypatch.setattr(page, "RECORD", tmp_path / "mutants.json")
    page.RECORD.write_text(json.dumps(before))
    monkeypatch.setattr(tool, "MUTANTS", tmp_path / "mutants")
    monkeypatch.setattr(tool, "run", None)
    monkeypatch.setattr(trial, "run", lambda mutants, *_: ((mutant, "tests::test") for mutant in mutants))
    assert main(["--left", "--record"]) == 0
    record = page.recorded()
    assert page.killed(record) == {mutant.key for mutant in BY_HAND}
    ran = [row["name"] for row in record["by hand"] if row["commit"] != "before"]
    assert ran == [first.name]


SOUND = """
import logging

from uponce.core.spans import Span

def test_it():
    logging.error("this line of the report names no test")
    assert Span(1, 2).size == 1
"""


@pytest.mark.proof  # a suite in a process each
def test_the_test_that_kills_a_mutant_is_recorded(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SOUND)
    suite = (str(tmp_path / "test_it.py"), "-c", os.devnull)
    mutant = HandMade("longer", "core/spans.py", "return self.end - self.start", "return self.end", suite)
    assert trial.killed_by(None, suite, tmp_path) == ""
    assert trial.killed_by(mutant, suite, tmp_path).endswith("test_it.py::test_it")


@pytest.mark.proof  # a suite in a process each
def test_a_mutant_of_a_database_with_which_no_commit_works_proves_nothing(tmp_path: Path) -> None:
    broken = HandMade(
        "no SQL", "adapters/database/sql/both.sql", "1, :keep_until, :now)", "1, :keep_until, now)", SQLITE
    )
    with pytest.raises(AssertionError, match="no commit works with the mutant: no SQL"):
        trial.verdict(broken, tmp_path)
