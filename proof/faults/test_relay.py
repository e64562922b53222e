"""The `relay` campaign: in `make proof` its small form, without chance; in `make full` a short run of all of it."""

import random
from pathlib import Path

import pytest

from proof.faults.campaigns import relay, relay_points
from proof.faults.relayed import SIZES
from proof.faults.strace import ABSENT, can_trace
from proof.faults.tally import Tally

pytestmark = pytest.mark.proof

SECONDS, SEED = 20, 20_261_127


@pytest.mark.parametrize("sit", relay.SMALL, ids=["a race of fifty", "a kill at every message", "a late waker"])
def test_no_asset_too_many_upstream_and_none_pending(sit: relay.Sit) -> None:
    report = relay.small(sit, SEED)
    print(report)
    assert report.holds, report
    assert report.inside > 0


def test_broken_relays_are_found(tmp_path: Path) -> None:
    tally, chance = Tally(), random.Random(SEED)
    relay.controls(tmp_path, chance, tally)
    relay.control_stops(tmp_path, chance, tally)
    report = tally.report("relay", SEED)
    assert not report.mismatched and all(report.controls.values()), report


@pytest.mark.skipif(not can_trace(), reason=ABSENT)
def test_a_kill_at_some_system_calls_of_an_exchange(tmp_path: Path) -> None:
    """This kills at some calls, the long campaign at all of them.

    A relay that frees an unknown outcome must be found here.
    """
    tally = Tally()
    relay_points.control(tmp_path, tally)
    relay_points.strike(tmp_path, random.Random(SEED), tally, SIZES[1], most=10)
    report = tally.report("relay_points", SEED)
    print(report)
    assert report.holds, report
    assert report.inside > 0


@pytest.mark.full
def test_a_relay_and_its_upstream_that_die() -> None:
    report = relay.run(SECONDS, SEED)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert report.counts["signatures whose outcome was looked up"] > 0
