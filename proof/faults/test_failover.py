"""The `failover` campaign, small: what standbys of PostgreSQL remember, and what the fence makes of the rest."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from proof.faults.campaigns import failover

pytestmark = pytest.mark.proof


def test_no_signature_works_again_after_a_standby_takes_over() -> None:
    report = failover.run(1, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0


def test_a_data_set_that_is_new_after_a_failover_is_found_on_both() -> None:
    with failover.paired(is_synchronous=False) as pair:
        pair.fail_over()
        url = pair.fresh_schema()
        hosts = conninfo_to_dict(url)["host"]
        assert sorted(str(hosts).split(",")) == sorted(str(one.folder) for one in (pair.primary, pair.standby))
