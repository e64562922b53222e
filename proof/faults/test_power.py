"""A few power cuts on each kind of file system, and the servers that must lose something in them."""

import pytest

from proof.faults.campaigns import power
from proof.faults.disks import KINDS, WITHOUT_JOURNAL, disks
from uponce.adapters.system import lacks_journal

pytestmark = pytest.mark.proof


def test_power_cuts_lose_nothing() -> None:
    """All zeros hold, every broken server is found, and cuts have hit uploads on each file system."""
    report = power.run(8, seed=2)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    for kind in KINDS:
        assert report.counts[f"cuts on {kind} with uploads in flight"] > 0


@pytest.mark.parametrize("kind", [*KINDS, WITHOUT_JOURNAL])
def test_a_disk_without_a_journal_is_known(kind: str) -> None:
    with disks([kind]) as (disk,), disk.fresh():
        assert lacks_journal(disk.path) == (kind == WITHOUT_JOURNAL)
