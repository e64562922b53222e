"""The race campaign, small; and a fixed number of signatures with everything it can see."""

from pathlib import Path
from types import ModuleType

import pytest

from proof.faults.campaigns import race_postgres, race_s3
from proof.faults.campaigns.race import GROUPED, USUAL_ATTEMPTS, Rules, race, run
from proof.faults.tally import Tally

pytestmark = pytest.mark.proof

SIGNATURES = 100
RACERS = 20


def test_a_short_race() -> None:
    """Each signature has exactly one asset, every loser gets the reason, and database and clients agree."""
    report = run(12, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert report.counts["signatures contested over several processes"] > 0


@pytest.mark.parametrize("campaign", [race_postgres, race_s3], ids=["PostgreSQL", "PostgreSQL and S3"])
def test_a_short_race_over_servers(campaign: ModuleType) -> None:
    report = campaign.run(8, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert report.counts["signatures contested over several processes"] > 0


@pytest.mark.parametrize(
    ("attempts", "kind"),
    [
        pytest.param(GROUPED, "image", id="in groups, JPEG"),
        pytest.param(USUAL_ATTEMPTS, "image", id="the usual two attempts a process, JPEG"),
        pytest.param(RACERS, "raw", id="all reach the commit, raw"),
    ],
)
def test_one_of_twenty_wins(tmp_path: Path, attempts: int | None, kind: str) -> None:
    """Two server processes that both take part."""
    tally, rules = Tally(), Rules(workers=2, attempts=attempts, kind=kind, racers=RACERS)
    seen = race(tmp_path / "race", rules, lambda signature: signature < SIGNATURES, tally)
    print(f"{rules}: {dict(seen.verdicts)}; requests by process: {dict(seen.served)}")
    assert not tally.violations, tally.notes
    assert seen.winners == dict.fromkeys(range(SIGNATURES), 1)
    both_take_part = len(seen.served) == rules.workers and min(seen.served.values()) > SIGNATURES * RACERS // 10
    assert both_take_part, seen.served
