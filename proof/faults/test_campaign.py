"""The runner of campaigns: what it prints, keeps and returns."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from proof.faults import campaign
from proof.faults.report import CONTROLS, ZEROS, Report
from proof.faults.tally import Tally

GOOD = Report("race", 7, {"signatures": 1500}, 20, {"double": 0}, {"mutant": 3})


def attempt(monkeypatch: pytest.MonkeyPatch, records: Path, report: Report, *options: str) -> int:
    """`make campaign CAMPAIGN=race` with this outcome."""
    monkeypatch.setitem(CONTROLS, "race", ("mutant",))
    monkeypatch.setitem(ZEROS, "race", ("double",))
    monkeypatch.setattr(campaign, "RECORDS", records)
    monkeypatch.setattr(campaign, "campaign", lambda name: lambda seconds, seed: replace(report, seed=seed))
    return campaign.main(["race", "--seconds", "1", "--seed", "7", *options])


@pytest.mark.parametrize(
    ("report", "told"),
    [
        pytest.param(replace(GOOD, zeros={"double": 2}), "2  must be 0: double <-- BROKEN", id="violation"),
        pytest.param(
            replace(GOOD, controls={"mutant": 0}), "0  control, must be above 0: mutant <-- NOT FOUND", id="blind"
        ),
        pytest.param(replace(GOOD, inside=0), "0  inside", id="nothing to break"),
        pytest.param(replace(GOOD, controls={}), "CONTROLS: mutant <-- MISSING", id="a control is gone"),
        pytest.param(
            replace(GOOD, controls={"mutant": 3, "other": 1}), "CONTROLS: other <-- MISSING", id="a control is new"
        ),
        pytest.param(replace(GOOD, zeros={"lost": 0}), "in the run: double <-- NOT REACHED", id="a check is gone"),
    ],
)
def test_what_does_not_hold_fails_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, report: Report, told: str
) -> None:
    """And it is recorded like any other: figures without the bad runs would be untrue."""
    assert attempt(monkeypatch, tmp_path / "records", report, "--record") == 1
    printed = capsys.readouterr().out
    assert told in printed
    assert "DOES NOT HOLD" in printed
    assert len((tmp_path / "records").read_text().splitlines()) == 1


def test_what_holds_is_told_with_seed_commit_and_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert attempt(monkeypatch, tmp_path / "records", GOOD) == 0
    printed = capsys.readouterr().out
    for part in ("campaign race, seed 7, commit ", "1,500  signatures", "cores ", "kernel ", "python ", "file system "):
        assert part in printed
    assert printed.endswith("HOLDS\n")
    assert not (tmp_path / "records").exists()


def test_records_add_a_line_for_each_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for _ in range(2):
        attempt(monkeypatch, tmp_path / "records", GOOD, "--record")
    first, second = map(json.loads, (tmp_path / "records").read_text().splitlines())
    assert first["report"] == second["report"]
    assert (first["report"]["seed"], first["report"]["counts"], first["seconds"]) == (7, {"signatures": 1500}, 1.0)
    assert first.keys() == {"date", "commit", "dirty", "machine", "seconds", "took", "report", "shape"}


def test_a_campaign_that_could_not_run_proves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither skipped nor broken off it counts as held; no seed is lost."""

    def skip(seconds: float, seed: int) -> Report:
        pytest.skip("NOT TESTED: no strace")

    def fail(seconds: float, seed: int) -> Report:
        raise RuntimeError("the server did not start")

    for run, told in ((skip, "NOT TESTED: no strace"), (fail, "seed 7, ended early")):
        monkeypatch.setattr(campaign, "campaign", lambda name, run=run: run)
        assert campaign.main(["points", "--seed", "7"]) == 1
        assert told in capsys.readouterr().out


def test_every_campaign_can_be_run() -> None:
    """Each module has a `run`, and controls. No name at all runs all of them."""
    assert {"race", "kill", "points", "clients"} <= set(campaign.names())
    assert set(campaign.names()) == {name for name, controls in CONTROLS.items() if controls}
    assert all(callable(campaign.campaign(name)) for name in campaign.names())


def test_every_campaign_names_the_checks_that_it_must_reach() -> None:
    """None of those that a tally has from the start: they are 0 without a check."""
    assert ZEROS.keys() == CONTROLS.keys()
    assert {name for name, zeros in ZEROS.items() if not zeros} == {"points"}
    assert {zero for zeros in ZEROS.values() for zero in zeros} & {*Tally().zeros} == set()
