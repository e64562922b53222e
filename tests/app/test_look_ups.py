"""Look-ups of pending uploads for several accounts: one that hangs keeps no place that another one needs."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from tests.contract.databases import grant, relay
from tests.world import World
from uponce.app.outbox import Work, run_due
from uponce.app.ports import Effect
from uponce.app.ports.relaying import Query, UpstreamReply
from uponce.app.relaying.reconcile import LookUps
from uponce.app.services import Services
from uponce.core.errors import UpstreamUnavailable
from uponce.core.relaying import Relay
from uponce.core.upstream import Target
from uponce.core.values import Algorithm, Upstream

PATIENCE = 60
MANY = 10_000
AT_ONCE = 16
ACCOUNTS = {
    name: Upstream(name, "1", "secret", "http://127.0.0.1:9", Algorithm.SHA1, 600) for name in ("hangs", "well")
}
NOTHING: Mapping[str, Any] = {"error": {"message": "Resource not found"}}


class Pending:
    """A database with these uploads pending, one look-up each, due in this order. A postponed one is not due again."""

    def __init__(self, *clouds: str) -> None:
        self._relays = [self._relay(cloud, str(number)) for number, cloud in enumerate(clouds)]
        self._due = iter([Effect(number, "relay", str(number), 0, 1, 0) for number in range(len(clouds))])
        self.postponed: list[tuple[int, str]] = []

    def _relay(self, cloud: str, number: str) -> Relay:
        target = Target("raw", "upload", {}, (("raw", "cat"),), account=ACCOUNTS[cloud].account)
        return replace(relay(grant("a"), id=number), cloud=cloud, target=target)

    async def claim_effects(self, name: str, most: int, lease: int) -> Sequence[Effect]:
        return list(islice(self._due, most))

    async def find_relay(self, relay_id: str) -> Relay | None:
        return self._relays[int(relay_id)]

    async def list_upstreams(self) -> Mapping[str, Upstream]:
        return ACCOUNTS

    async def postpone_effect(self, effect: Effect, seconds: int, error: str = "", *, dead: bool = False) -> None:
        self.postponed.append((seconds, error))


class Accounts:
    """The accounts. One answers; the other one does so once `answers` is set. `end` ends what hangs without an answer.

    `asked` and `most` are how many look-ups each account got, in all and at once.
    """

    def __init__(self) -> None:
        self.asked, self.most, self._now = (dict.fromkeys(ACCOUNTS, 0) for _ in range(3))
        self._end, self.answers, self.well_asked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def end(self) -> None:
        self._end.set()
        self._end = asyncio.Event()
        self.most = dict.fromkeys(ACCOUNTS, 0)

    async def get(self, upstream: Upstream, path: str, query: Query = ()) -> UpstreamReply:
        name = upstream.cloud
        self.asked[name] += 1
        self._now[name] += 1
        self.most[name] = max(self.most[name], self._now[name])
        try:
            if name == "well":
                self.well_asked.set()
            elif not self.answers.is_set():
                await self._end.wait()
                raise UpstreamUnavailable("no answer")
        finally:
            self._now[name] -= 1
        return UpstreamReply(404, NOTHING, "")


def services_of(world: World, database: Pending, accounts: Accounts) -> Services:
    parts: Any = {"database": database, "upstream": accounts}
    return replace(world.services, **parts)


async def until(accounts: Accounts, asked: int) -> None:
    while accounts.asked["hangs"] < asked:
        await asyncio.sleep(0)


def test_an_account_that_hangs_delays_no_look_up_of_another_one(world: World) -> None:
    async def play() -> tuple[Pending, Accounts]:
        database, accounts = Pending(*["hangs"] * MANY, "well"), Accounts()
        work = Work(LookUps().reconcile)
        async with asyncio.timeout(PATIENCE):
            running = asyncio.create_task(run_due(services_of(world, database, accounts), "relay", work))
            await until(accounts, AT_ONCE)
            accounts.end()
            await accounts.well_asked.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return database, accounts

    database, accounts = asyncio.run(play())
    assert (accounts.asked["hangs"], accounts.most["hangs"]) == (AT_ONCE + 1, 1)
    passed_over = [seconds for seconds, error in database.postponed if "another look-up is tried first" in error]
    assert len(passed_over) >= MANY - 2 * AT_ONCE
    assert set(passed_over) == {10}


def test_an_account_that_answers_again_gets_many_at_once_again(world: World) -> None:
    async def play() -> Accounts:
        accounts, look_ups = Accounts(), Work(LookUps().reconcile)

        async def run(count: int) -> None:
            database = Pending(*["hangs"] * count)
            await run_due(services_of(world, database, accounts), "relay", look_ups)

        async with asyncio.timeout(PATIENCE):
            failing = asyncio.create_task(run(1))
            await until(accounts, 1)
            accounts.end()
            await failing
            accounts.answers.set()
            await run(1)
            accounts.answers.clear()
            many = asyncio.create_task(run(AT_ONCE))
            await until(accounts, AT_ONCE + 2)
            accounts.end()
            await many
        return accounts

    assert asyncio.run(play()).asked["hangs"] == AT_ONCE + 2


def test_a_look_up_that_runs_out_of_time_counts_as_not_answered(world: World) -> None:
    """The outbox cancels it."""

    async def play() -> Accounts:
        accounts, look_ups = Accounts(), LookUps()
        services = services_of(world, Pending("hangs"), accounts)
        async with asyncio.timeout(PATIENCE):
            late = asyncio.create_task(look_ups.reconcile(services, Effect(0, "relay", "0", 0, 1, 0)))
            await until(accounts, 1)
            late.cancel()
            await asyncio.gather(late, return_exceptions=True)
            services = services_of(world, Pending(*["hangs"] * AT_ONCE, "well"), accounts)
            running = asyncio.create_task(run_due(services, "relay", Work(look_ups.reconcile)))
            await accounts.well_asked.wait()
            accounts.end()
            await running
        return accounts

    assert asyncio.run(play()).asked["hangs"] == 2
