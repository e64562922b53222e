"""Two servers on one PostgreSQL and one media folder: races over both, and a database that is killed under load."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from proof.faults.audit import Receipt
from proof.faults.campaigns.race import MUTANT
from proof.faults.clients import Reply, ask, connected, form, hold_back, release
from proof.faults.fleet import Fleet, on_postgres
from proof.faults.media import Folder
from proof.faults.operator import rotate_key
from tests.postgres import Postgres, shared
from tests.server import Key, Server

pytestmark = pytest.mark.proof

SIGNATURES = 25
RACERS = 12
LOAD_CLIENTS = 6
KILLS = 3


@contextmanager
def pair(folder: Path, url: str, program: Sequence[str] = ("-m", "uponce")) -> Iterator[Sequence[Server]]:
    with on_postgres(folder, url, program=program, UPONCE_ATTEMPTS_PER_GRANT=str(RACERS + 1)) as both:
        yield both.servers


async def contest(servers: Sequence[Server], signature: int) -> list[Reply]:
    """Let racers with one signature, spread over the servers, complete in the same moment."""
    fields = servers[0].signed({"nonce": f"signature-{signature}"})
    dealt = [servers[racer % len(servers)] for racer in range(RACERS)]
    requests = [form(server, fields, f"{signature}/{racer}".encode() * 100) for racer, server in enumerate(dealt)]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(server)) for server in dealt]
        await hold_back(connections, requests)
        return await release(connections, requests)


async def contests(servers: Sequence[Server], signatures: int, *, until_red: bool = False) -> list[Counter[str]]:
    """Return the verdicts of so many contests, or up to the first one with several winners."""
    told: list[Counter[str]] = []
    while len(told) < signatures and not (until_red and told and told[-1]["ok"] > 1):
        told.append(Counter(reply.verdict for reply in await contest(servers, len(told))))
    return told


def books(url: str) -> tuple[int, int, int]:
    """Return the number of assets, of uses in the ledger, and of uses in the audit."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM assets), (SELECT sum(uses) FROM grants)::bigint, "
            "(SELECT count(*) FROM audit WHERE event = 'spent')"
        ).fetchone()
    assert row is not None
    return row


def blobs(folder: Path) -> int:
    return len(Folder(folder / "media").keys())


def test_of_racers_over_two_servers_exactly_one_wins(tmp_path: Path) -> None:
    url = shared().fresh_schema()
    with pair(tmp_path, url) as servers:
        told = asyncio.run(contests(servers, SIGNATURES))
    assert told == [Counter(ok=1, signature_used=RACERS - 1)] * SIGNATURES
    assert books(url) == (SIGNATURES,) * 3
    assert blobs(tmp_path) == SIGNATURES


def test_the_race_goes_red_on_servers_that_look_before_they_insert(tmp_path: Path) -> None:
    url = shared().fresh_schema()
    with pair(tmp_path, url, (MUTANT,)) as servers:
        told = asyncio.run(contests(servers, SIGNATURES, until_red=True))
    assert told[-1]["ok"] > 1
    assert books(url)[0] > len(told)


@pytest.fixture
def own() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


def test_a_database_killed_under_load_loses_nothing_acknowledged(tmp_path: Path, own: Postgres) -> None:
    """SIGKILL every process of PostgreSQL, and restart it. Uploads are refused, then served again.

    Nothing is forgotten.
    """
    url = own.fresh_schema()
    with pair(tmp_path, url) as servers:
        receipts, verdicts = asyncio.run(_under_load(servers, own))
        again = asyncio.run(_replay(servers[0], [fields for fields, _ in receipts]))
        with psycopg.connect(url) as connection:
            kept: dict[str, str] = dict(connection.execute("SELECT asset_id, sha256 FROM assets").fetchall())
        for _, receipt in receipts:
            assert kept[receipt.asset_id] == receipt.sha256
    print(verdicts)
    assert set(again) == {"signature_used"}
    assert set(verdicts) <= {"ok", "database_unavailable", "outcome_unknown"}
    assert verdicts["ok"] > 0
    assert verdicts["database_unavailable"] > 0
    assets, uses, told = books(url)
    assert assets == uses == told >= verdicts["ok"]
    assert assets - verdicts["ok"] <= verdicts["outcome_unknown"]


Signed = dict[str, str]


async def _under_load(servers: Sequence[Server], own: Postgres) -> tuple[list[tuple[Signed, Receipt]], Counter[str]]:
    receipts: list[tuple[Signed, Receipt]] = []
    verdicts: Counter[str] = Counter()
    numbers = itertools.count()
    done = asyncio.Event()

    async def client(server: Server) -> None:
        while not done.is_set():
            number = next(numbers)
            fields, body = server.signed({"nonce": f"load-{number}"}), f"upload {number}".encode() * 50
            reply = await ask(server, form(server, fields, body))
            verdicts[reply.verdict] += 1
            if reply.status == 200:
                receipts.append((fields, reply.receipt(body)))
            elif reply.status == 503:
                await asyncio.sleep(0.05)

    async def ten_more() -> None:
        """Acknowledged on each side of every kill."""
        goal, deadline = len(receipts) + 10, time.monotonic() + 60
        while len(receipts) < goal:
            assert time.monotonic() < deadline, f"the servers did not recover: {verdicts}"
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        for number in range(LOAD_CLIENTS):
            group.create_task(client(servers[number % len(servers)]))
        for _ in range(KILLS):
            await ten_more()
            await asyncio.to_thread(own.kill)
            refused = verdicts["database_unavailable"]
            while verdicts["database_unavailable"] == refused:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(own.start)
        await ten_more()
        done.set()
    return receipts, verdicts


async def _replay(server: Server, signed: Sequence[Signed]) -> list[str]:
    return [(await ask(server, form(server, fields, b"again"))).verdict for fields in signed]


DIFFERENT = (
    {"UPONCE_MAX_RAW_BYTES": "3000", "UPONCE_SKEW": "60", "UPONCE_SMALL_BODY_BYTES": "0"},
    {"UPONCE_MAX_RAW_BYTES": "9000", "UPONCE_WINDOW": "60", "UPONCE_ATTEMPTS_PER_GRANT": "1"},
)
ROTATED_AFTER, ROTATION_LANES, LANE_UPLOADS = 20, 4, 15
WITH_BOTH = 9  # the first upload of a lane that waits for the new secret


async def _rotate_amid_uploads(fleet: Fleet, tally: Counter[str]) -> Key:
    """Let each signature be used on one server and tried on the other one, before and after a rotation of their key."""
    first, secrets = fleet.first, [fleet.first.browser]
    begun, rotated = itertools.count(), asyncio.Event()

    async def lane(name: int) -> None:
        for number in range(LANE_UPLOADS):
            if number >= WITH_BOTH:
                await rotated.wait()
            if next(begun) == ROTATED_AFTER:
                secrets.append(await asyncio.to_thread(rotate_key, fleet.place, first.browser, 3600))
                rotated.set()
            here, there, key = fleet.dealt(number), fleet.dealt(number + 1), secrets[number // 2 % len(secrets)]
            fields = first.signed({"nonce": f"{name}-{number}"}, key)
            tally[f"{secrets.index(key)} {(await ask(here, form(here, fields, b'once'))).verdict}"] += 1
            tally[f"again {(await ask(there, form(there, fields, b'twice'))).verdict}"] += 1

    await asyncio.gather(*(lane(name) for name in range(ROTATION_LANES)))
    return secrets[1]


def test_two_servers_of_different_settings_share_their_ledger_while_a_key_is_rotated(tmp_path: Path) -> None:
    """Both take both secrets. A file is too large for one of them only, which spends nothing."""
    url, tally = shared().fresh_schema(), Counter[str]()
    with on_postgres(tmp_path, url, 2, None, DIFFERENT) as fleet:
        new = asyncio.run(_rotate_amid_uploads(fleet, tally))
        fields = fleet.first.signed({"nonce": "large"}, new)
        large = [server.post(fields, b"x" * 5000, resource_type="raw") for server in fleet.servers]
        newest = rotate_key(fleet.place, new, 0)
        signed = [fleet.first.signed({"nonce": "late"}, key) for key in (new, newest)]
        late = [server.post(fields, b"x") for fields in signed for server in fleet.servers]
    uploads = ROTATION_LANES * LANE_UPLOADS
    assert tally["0 ok"] + tally["1 ok"] == tally["again signature_used"] == uploads
    assert min(tally["0 ok"], tally["1 ok"]) > ROTATED_AFTER / 2
    assert [answer.status for answer in large] == [400, 200], [answer.json() for answer in large]
    assert [answer.status for answer in late] == [401, 401, 200, 400]
    assert books(url) == (uploads + 2,) * 3
