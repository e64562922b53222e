"""The `failover` campaign, small: what standbys of PostgreSQL remember, and what the fence makes of the rest."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from proof.faults.campaigns import failover
from tests.contract.databases import CALLER, KEY, PlainBox, draft, grant
from tests.postgres import Postgres
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.core.errors import DatabaseUnavailable, StaleRequest

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


@pytest.fixture
def three() -> Iterator[list[Postgres]]:
    """Yield a primary and two standbys of it."""
    with ExitStack() as stack:
        servers: list[Postgres] = []
        for _ in range(3):
            servers.append(Postgres(*servers[:1]))
            stack.callback(servers[-1].stop)
            servers[-1].start()
        yield servers


@pytest.mark.parametrize("third", [0, 2])
def test_no_signature_works_again_after_a_second_failover(three: list[Postgres], third: int) -> None:
    """The second failover is to the former primary, which was not rewound, or to a standby that did not follow."""
    hosts = ",".join(quote(str(each.folder)) for each in three)
    database = PostgresDatabase(f"postgresql://uponce@/postgres?host={hosts}", secrets=PlainBox(), seconds=60)
    database.open()
    asyncio.run(database.add_key(KEY))
    assert use(database, "first", int(time.time())) == "ok"
    ((end,),) = three[0].ask("SELECT pg_current_wal_flush_lsn()")
    while three[0].ask(f"SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= '{end}'") != [(2,)]:
        time.sleep(0.02)
    three[0].kill()
    three[1].promote()
    at = int(time.time())
    assert use(database, "second", at) == "stale"
    while use(database, "third", at) != "ok":
        time.sleep(0.1)
        at = int(time.time())
    if third == 0:
        three[0].start()
    three[1].kill()
    if third == 2:
        three[2].promote()
    with pytest.raises(DatabaseUnavailable) as refused:
        use(database, "third", at)
    assert "has replaced the one that answers" in refused.value.detail
    database.close()


def use(database: PostgresDatabase, name: str, at: int) -> str:
    for tries_left in reversed(range(4)):
        try:
            asyncio.run(database.commit(grant(name, at=at), draft(name, blob=f"{name}-{tries_left}"), CALLER))
            return "ok"
        except StaleRequest:
            return "stale"
        except DatabaseUnavailable:
            if not tries_left:
                raise
    raise AssertionError
