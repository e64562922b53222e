"""A former primary that starts again is found first. Sweeps through it would delete files of the present one."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.contract.databases import CALLER, KEY, draft, grant
from tests.postgres import Postgres
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.postgres.pool import discard
from uponce.app.owner import claim_storage
from uponce.app.services import Services
from uponce.app.sweep import sweep
from uponce.config import load
from uponce.core.errors import DatabaseUnavailable, SettingRefused
from uponce.wiring import opened

pytestmark = pytest.mark.proof


@pytest.fixture
def pair() -> Iterator[tuple[Postgres, Postgres]]:
    primary = Postgres()
    primary.start()
    standby = Postgres(primary)
    standby.start()
    yield primary, standby
    primary.stop()
    standby.stop()


async def uploaded(services: Services, name: str) -> str:
    """Return the key of a file that was stored and committed. Its signature is newer than every fence."""
    spooled = await services.blobs.receive()
    await spooled.write(name.encode())
    digest = await spooled.seal()
    await spooled.publish()
    used = grant(name, at=int(time.time()) + 1000)
    await services.database.commit(used, draft(name, blob=spooled.key, digest=digest), CALLER)
    return spooled.key


async def has(services: Services, key: str) -> bool:
    blob = await services.blobs.open(key)
    if blob is not None:
        blob.close()
    return blob is not None


def test_no_server_sweeps_through_a_former_primary(
    pair: tuple[Postgres, Postgres], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former, present = pair
    hosts = f"{quote(str(former.folder))},{quote(str(present.folder))}"
    monkeypatch.setenv("UPONCE_DATABASE", f"postgresql://uponce@/postgres?host={hosts}")
    monkeypatch.setenv("UPONCE_DATABASE_SECONDS", "60")
    settings = load(data=str(tmp_path))

    async def fail_over(services: Services) -> str:
        await claim_storage(services.database, services.blobs)
        await services.database.add_key(KEY)
        await uploaded(services, "before")
        ((end,),) = former.ask("SELECT pg_current_wal_flush_lsn()")
        while present.ask(f"SELECT pg_last_wal_replay_lsn() >= '{end}'") != [(True,)]:
            await asyncio.sleep(0.02)
        former.halt()
        present.promote()
        with suppress(DatabaseUnavailable):  # the connection has ended
            await services.database.find_key(KEY.api_key)
        key = await uploaded(services, "after")
        await services.ownership.look(services.database, services.blobs)  # as each /readyz does
        return key

    with opened(settings, create=True) as running:
        key = asyncio.run(fail_over(running.services))
        former.start()
        assert isinstance(running.database, PostgresDatabase)
        while running.database._pool._idle:
            discard(running.database._pool._idle.pop())
        with pytest.raises(DatabaseUnavailable) as refused:
            asyncio.run(sweep(running.services, grace_seconds=0, audit_seconds=None))
        assert "Another PostgreSQL has replaced" in refused.value.detail
        assert asyncio.run(has(running.services, key))

    with opened(settings) as later:
        with pytest.raises(SettingRefused, match="belongs to another database"):
            asyncio.run(sweep(later.services, grace_seconds=0, audit_seconds=None))
        assert asyncio.run(has(later.services, key))

    former.halt()
    with opened(settings) as later:
        asyncio.run(sweep(later.services, grace_seconds=0, audit_seconds=None))
        assert asyncio.run(has(later.services, key))
