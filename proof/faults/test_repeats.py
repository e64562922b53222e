"""Clients that lost their reply ask again: at once over two processes or servers, and after a kill at every step."""

import asyncio
import math
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proof.faults.audit import count, examine
from proof.faults.campaigns.points import control_repeats, points, sampled, strike_all
from proof.faults.clients import Reply, ask, connected, form, hold_back, release
from proof.faults.fleet import on_postgres
from proof.faults.processes import owners
from proof.faults.scenes import repeating
from proof.faults.strace import ABSENT, can_trace
from proof.faults.tally import Tally
from proof.faults.test_kill_points import SAMPLES
from tests.postgres import shared
from tests.server import Server

pytestmark = pytest.mark.proof

RACERS = 20
SIGNATURES = 25
MOST_SIGNATURES = 30  # of a broken server
SIDE_BY_SIDE = str(Path(__file__).parent / "mutants" / "repeats_side_by_side.py")
KEY = {"Idempotency-Key": '"the-same-one"'}


async def contest(server: Server, request: bytes) -> tuple[list[Reply], set[int]]:
    """Return the replies to so many equal requests that complete together, and the processes that held them."""
    requests = [request] * RACERS
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(server)) for _ in requests]
        await hold_back(connections, requests)
        ports = [connection.port for connection in connections]
        async with asyncio.timeout(60):
            while len(held := owners(server.pid, server.port, ports)) < RACERS:
                await asyncio.sleep(0.002)
        return await release(connections, requests), set(held.values())


async def deal(servers: Sequence[Server], request: bytes) -> list[Reply]:
    """Return the replies to so many equal requests that complete together, spread over the servers."""
    requests = [request] * RACERS
    async with AsyncExitStack() as stack:
        connections = [
            await stack.enter_async_context(connected(servers[number % len(servers)])) for number in range(RACERS)
        ]
        await hold_back(connections, requests)
        return await release(connections, requests)


def is_replay(reply: Reply) -> bool:
    return reply.headers.get("idempotent-replayed") == "true"


@pytest.mark.parametrize("which", ["browser", "server"])
def test_of_twenty_equal_uploads_one_is_stored_and_all_get_its_answer(tmp_path: Path, which: str) -> None:
    """Under a key whose signatures work once, and under one with any number of uses."""
    processes: set[int] = set()
    settings = {"UPONCE_ATTEMPTS_PER_GRANT": str(RACERS + 1), "UPONCE_LOG_LEVEL": "info"}
    with Server(tmp_path / "data", workers=2, env=settings) as server:
        server.wait_for_all()
        for number in range(SIGNATURES):
            fields = server.signed({"nonce": str(number)}, getattr(server, which))
            data = f"the bytes of upload {number}, ".encode() * 500
            replies, held = asyncio.run(contest(server, form(server, fields, data, headers=KEY)))
            processes |= held
            assert {reply.status for reply in replies} == {200}, replies
            assert len({reply.data for reply in replies}) == 1
            assert sorted(is_replay(reply) for reply in replies) == [False] + [True] * (RACERS - 1)
        server.stop()
    assert len(processes) == 2
    assert [count(server.data_dir, what) for what in ("assets", "replies", "audit")] == [SIGNATURES] * 3
    assert not examine(server.data_dir)


def repeats_on_two_servers(folder: Path, which: str, signatures: int, *program: str) -> list[bool]:
    """Return, for each signature up to a wrong one, whether one upload was stored and all got its answer."""
    right = []
    with on_postgres(
        folder,
        shared().fresh_schema(),
        program=program or ("-m", "uponce"),
        UPONCE_ATTEMPTS_PER_GRANT=str(RACERS + 1),
    ) as both:
        first = both.servers[0]
        for number in range(signatures):
            fields = first.signed({"nonce": str(number)}, getattr(first, which))
            data = f"the bytes of upload {number}, ".encode() * 500
            replies = asyncio.run(deal(both.servers, form(first, fields, data, headers=KEY)))
            one = [is_replay(reply) for reply in replies].count(False) == 1
            equal = len({(reply.status, reply.data) for reply in replies}) == 1
            stored = [count(both.place, what) for what in ("assets", "replies", "audit")]
            right.append(one and equal and stored == [number + 1] * 3)
            if not right[-1]:
                break
        if all(right):
            assert not examine(both.place)
    return right


@pytest.mark.parametrize("which", ["browser", "server"])
def test_equal_uploads_on_two_servers_of_one_postgres_get_one_answer(tmp_path: Path, which: str) -> None:
    assert repeats_on_two_servers(tmp_path, which, 8) == [True] * 8


@pytest.mark.parametrize("which", ["browser", "server"])
def test_repeats_that_do_not_wait_for_one_another_are_found_out(tmp_path: Path, which: str) -> None:
    """Two servers look for the reply at the same time: the second is refused, or stores it again."""
    assert not all(repeats_on_two_servers(tmp_path, which, MOST_SIGNATURES, SIDE_BY_SIDE))


def test_a_repeat_that_is_refused_as_one_too_many_gets_the_answer_soon(tmp_path: Path) -> None:
    """With the usual two attempts at a time, a client that waits and asks again gets the same answer as the others."""
    with Server(tmp_path / "data", workers=2) as server:
        request = form(server, server.signed(), b"once " * 1000, headers=KEY)
        replies, _ = asyncio.run(contest(server, request))
        answers = {reply.data for reply in replies if reply.status == 200}
        refused = {reply.verdict for reply in replies if reply.status != 200}
        assert len(answers) == 1
        assert refused <= {"signature_in_use"}
        assert all("retry-after" in reply.headers for reply in replies if reply.status != 200)
        last = asyncio.run(ask(server, request))
        assert ({last.data}, is_replay(last)) == (answers, True)


@pytest.mark.skipif(not can_trace(), reason=ABSENT)
@pytest.mark.parametrize("most", SAMPLES)
def test_an_upload_killed_at_every_step_is_told_when_it_is_repeated(tmp_path: Path, most: int | None) -> None:
    """The kill may be before the commit, or between the commit and the reply."""
    tally, scene = Tally(), repeating(tmp_path / "origin")
    every = sampled(points(scene, tmp_path / "watched"), most)
    strike_all(tmp_path, [(scene, point) for point in every], tally, math.inf)
    print(f"{tally.inside} points, {tally.violations} with violations")
    assert not tally.violations, tally.notes
    assert tally.inside == len(every) > 10


@pytest.mark.skipif(not can_trace(), reason=ABSENT)
def test_a_reply_that_is_stored_after_the_commit_is_found_out(tmp_path: Path) -> None:
    tally = Tally()
    control_repeats(tmp_path, tally)
    assert tally.controls["reply after commit"] > 0
