"""The benchmarks run, and say what they have measured. How fast it is, no test says."""

import os
import signal
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from proof.bench.__main__ import main
from proof.bench.database import add_expiring
from proof.bench.measure import Sample, Traffic, send
from proof.bench.page import recorded, sections
from proof.bench.picture import BARS, TILES, picture
from proof.bench.requests import get, uploads
from proof.bench.result import CaseResult, Result, compared, judged
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.rows import ROWS
from proof.bench.scale.__main__ import main as measure_scale
from proof.bench.servers import BenchmarkError, Server, uponce


@pytest.mark.proof
def test_the_rows_that_need_no_patience_can_be_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """P1, P3, P6 and P8 for a moment, on a real server."""
    options = ["--rounds", "1", "--seconds", "0.5", "--film", "3", "--cache", str(tmp_path / "cache")]

    assert main(["P1", "P3", "P6", "P8", *options]) == 0

    told = capfd.readouterr().out
    for figure in ("uploads/s", "refusals/s", "honest uploads kept", "GET/s", "MB/s", "start to first 200, s"):
        assert figure in told
    assert [path for path in (tmp_path / "cache").iterdir() if path.name.startswith("run-")] == []


@pytest.mark.proof
def test_a_filled_database_can_be_used_by_its_server(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """P5 and P7 with few rows: look-ups find their signatures, uploads go on, the rest is purged.

    In the second round the stored files of the first one are gone, and the server still starts.
    """
    options = ["--rounds", "2", "--seconds", "0.5", "--latency-seconds", "1", "--fill", "2000"]

    assert main(["P5", "P7", *options, "--cache", str(tmp_path / "cache")]) == 0

    assert "look-up p99 ms" in capfd.readouterr().out


@pytest.mark.parametrize("rows", [1, 255, 256])
def test_as_many_signatures_can_be_added_as_are_asked_for(tmp_path: Path, rows: int) -> None:
    with closing(sqlite3.connect(tmp_path / "uponce.db")) as connection:
        connection.execute("CREATE TABLE grants (grant_key BLOB PRIMARY KEY, timestamp INTEGER, keep_until INTEGER)")
        connection.execute("INSERT INTO grants VALUES (x'00', 1700000000, 1700000000)")
        connection.commit()

        add_expiring(tmp_path / "uponce.db", rows, 1.0)

        assert connection.execute("SELECT count(*) FROM grants").fetchone() == (1 + rows,)


@pytest.mark.proof
def test_a_film_in_parts_can_be_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """P9 with a small film and few unfinished uploads."""
    options = ["--rounds", "1", "--film", "3", "--fill", "10", "--cache", str(tmp_path / "cache")]

    assert main(["P9", *options]) == 0

    told = capfd.readouterr().out
    for case in ("one request", "chunks of 20 MB", "tus, one PATCH", "tus, PATCHes of 20 MB", "unfinished uploads"):
        assert case in told


@pytest.mark.proof
def test_a_relay_can_be_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """P10 with a small film: each upload goes directly and through the relay."""
    options = ["--rounds", "1", "--seconds", "0.3", "--film", "3", "--cache", str(tmp_path / "cache")]

    assert main(["P10", *options]) == 0

    told = capfd.readouterr().out
    for figure in ("added ms", "relay p99 ms", "uploads/s", "MB/s", "memory above idle MiB", "uploads under way"):
        assert figure in told


@pytest.mark.proof
def test_shared_parts_can_be_measured(capfd: pytest.CaptureFixture[str]) -> None:
    """P12: PostgreSQL and the bucket start for each measurement, and nothing of them is left."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user
        options = ["--rounds", "1", "--seconds", "0.3", "--cache", str(Path(folder, "cache"))]

        assert main(["P12", *options]) == 0

        assert not list(Path(folder).glob("**/uponce-pg-*"))
    told = capfd.readouterr().out
    for case in ("SQLite + disk", "PostgreSQL + disk", "PostgreSQL + bucket"):
        assert case in told


def test_refused_uploads_are_no_figure(tmp_path: Path) -> None:
    """Signed with a wrong secret: fast, and worth nothing."""
    setup = Setup(tmp_path, 1, 1, 1, 1)
    with Server(uponce(sys.executable), tmp_path / "data") as server:
        forged = server.keys()[0]._replace(secret="guessed")
        heads = uploads(server, forged, setup.picture, 4)

        with pytest.raises(BenchmarkError, match="401"):
            send(server, Traffic(heads, setup.picture, connections=1, seconds=10))


@pytest.mark.proof
def test_a_server_that_dies_costs_its_own_figure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is not lost: the other cases are measured in every round, and the report has the reason."""
    rounds: list[str] = []

    def measure(server: Server, setup: Setup) -> Sample:
        rounds.append("well")
        return {"GET/s": 1.0}

    def die(server: Server, setup: Setup) -> Sample:
        rounds.append("dying")
        os.kill(next(child.pid for child in psutil.Process().children() if "--port" in child.cmdline()), signal.SIGKILL)
        send(server, Traffic([get(server, "/healthz")], connections=1, seconds=10))
        raise AssertionError

    program = uponce(sys.executable)
    cases = [Case("well", program, measure), Case("dying", program, die)]
    claims = (Claim("alone", ("well",), at_least=1.0), Claim("beside", ("well",), ("dying",), at_least=1.0))
    fragile = Row("P1", "fragile", lambda setup, version: cases, claims)

    monkeypatch.setattr("proof.bench.__main__.ROWS", (fragile,))

    assert main(["--rounds", "2", "--cache", str(tmp_path)]) == 1

    assert sorted(rounds) == ["dying", "well", "well"]
    told = capfd.readouterr().out
    assert "dying was not measured: The server died, with exit code -9." in told
    assert "alone: well  ≥ 1 met" in told
    assert "beside" not in told


def test_an_unknown_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["P0", "--cache", str(tmp_path)])


CASES = [
    CaseResult("uponce, 1 worker", [{"uploads/s": 100.0, "p99 ms": 4.0}, {"uploads/s": 300.0, "p99 ms": 6.0}]),
    CaseResult("uponce, 2 workers", [{"uploads/s": 90.0, "p99 ms": 5.0}, {"uploads/s": 90.0, "p99 ms": 5.0}]),
    CaseResult("busboy, durable", [{"uploads/s": 50.0, "p99 ms": 2.0}, {"uploads/s": 200.0, "p99 ms": 2.0}]),
]
BEST, BUSBOY = ("uponce, 1 worker", "uponce, 2 workers"), ("busboy, durable",)


def row(*claims: Claim) -> Row:
    return Row("P1", "uploads", lambda setup, version: (), claims)


def test_ratios_compare_the_best_case_round_by_round() -> None:
    """Not median over median: the machine of a round is the same for both."""
    (claim,) = judged(row(Claim("faster", BEST, BUSBOY, at_least=1.75)), CASES)

    assert (claim.of, claim.over, claim.values) == ("uponce, 1 worker", "busboy, durable", [2.0, 1.5])
    assert claim.met
    assert not judged(row(Claim("faster", BEST, BUSBOY, at_least=1.76)), CASES)[0].met


def test_a_figure_that_must_be_small() -> None:
    (claim,) = judged(row(Claim("quick", BEST, figure="p99 ms", at_most=4.9)), CASES)

    assert (claim.of, claim.values, claim.met) == ("uponce, 1 worker", [4.0, 6.0], False)


def test_a_claim_of_each_round_needs_each_round() -> None:
    claims = [
        Claim("even", BEST[:1], BUSBOY, at_most=1.9, in_each=True),
        Claim("even", BEST[:1], BUSBOY, at_most=2.0, in_each=True),
        Claim("even", BEST[:1], BUSBOY, at_least=1.6, in_each=True),
        Claim("even", BEST[:1], BUSBOY, at_least=1.5, in_each=True),
    ]
    assert [claim.met for claim in judged(row(*claims), CASES)] == [False, True, False, True]


def test_a_claim_over_what_was_not_measured_is_left_out() -> None:
    assert judged(row(Claim("faster", BEST, ("caddy GET",), at_least=1.0)), CASES) == []


def test_two_commits_are_compared_figure_by_figure() -> None:
    claims = compared(CASES, {"uponce, 1 worker": "uponce, 2 workers"})

    assert [claim.values for claim in claims] == [[100 / 90, 300 / 90], [0.8, 1.2]]


def test_the_page_says_what_was_met_and_what_was_missed() -> None:
    claims = judged(row(Claim("met", BEST, BUSBOY, at_least=1.5), Claim("missed", BEST, BUSBOY, at_least=3)), CASES)
    result = Result("P1", "A <title>", "2026-01-01", "abc1234", True, "make", {"cores": "2"}, {}, CASES, claims)

    page = sections([result])

    assert "| met | uponce, 1 worker / busboy, durable | 1.75 (1.5 to 2) | ≥ 1.5 | met |" in page
    assert "| 1.75 (1.5 to 2) | ≥ 3 | missed |" in page
    assert "`abc1234` + changes, 2 rounds, `make`" in page


def test_the_picture_shows_every_figure_that_it_names() -> None:
    """From the records of this repository: no tile and no bar is missing, and peers are drawn to one scale."""
    drawn = picture(recorded())

    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert drawn.count("<rect") == len(TILES) + sum(len(bars.cases) for bars in BARS)
    assert "not measured" not in drawn
    assert drawn.count('width="480"') == len(BARS)
    assert ElementTree.fromstring(picture([])).tag.endswith("svg")


def test_every_claim_speaks_of_cases_that_exist(tmp_path: Path) -> None:
    """Otherwise a renamed case would silently lose its target."""
    setup = Setup(tmp_path, 1, 1, 1, 1)
    (tmp_path / "picture.jpg").touch()
    (tmp_path / "film-1.mp4").touch()
    for each in ROWS:
        named = {case.name for case in (*each.own(setup, Version("uponce", "python")), *each.peers(setup))}
        assert {name for claim in each.claims for name in (*claim.of, *claim.over)} <= named


def test_rows_are_numbered_as_they_are_told() -> None:
    assert [each.number for each in ROWS] == [f"P{number}" for number in range(1, 13)]


@pytest.mark.proof
def test_full_databases_can_be_measured(capfd: pytest.CaptureFixture[str]) -> None:
    """Few rows for a moment, on both engines; nothing of them is left."""
    with tempfile.TemporaryDirectory() as cache:
        Path(cache).chmod(0o755)  # PostgreSQL runs as another user

        assert measure_scale(["--fill", "2000", "--rounds", "1", "--seconds", "0.1", "--cache", cache]) == 0

        assert list(Path(cache).iterdir()) == []
    told = capfd.readouterr().out
    for figure in ("SQLite", "PostgreSQL", "commits/s", "look-up p99 ms", "page, revoked ms", "slowest commit ms"):
        assert figure in told
