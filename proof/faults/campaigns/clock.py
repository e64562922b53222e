"""Clocks that are wrong, step, and disagree; databases that are restored from a backup. No spent signature works again.

Rounds follow each other, each on a new data folder. One has a server whose clock is stepped between and during uploads,
one has two servers whose clocks are ten minutes apart, and one restores from a backup. The backup lacks a later key.
Purges run once a second all the time.
"""

import asyncio
import itertools
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from proof.faults.audit import count
from proof.faults.control import seeded, until_red
from proof.faults.report import Report
from proof.faults.tally import FOUR, Tally
from proof.faults.timekeeping import KEPT, MARGIN, SKEW, WINDOW, Fields, Timekeeping
from tests.e2e.commands import in_a_process, uponce
from tests.server import Key

HOUR, DAY, APART = 3600, 86400, 600
LONGEST_ROUND, SHORTEST_ROUND = 15.0, 3.0
CONTROL_SIGNATURES = 5
LATER = Key("later", "a-secret-of-a-later-key")
REPLAYED = "spent signatures taken again"
REFUSED = "valid signatures refused"
STRANGE = "uploads without a definite answer"
# A step may make an upload stale or sweep its bytes away, never tear the truth.
DEFINITE = frozenset({"ok", "stale_request", "future_timestamp", "attempt_expired", "storage_unavailable"})

# No power is cut here: what an fsync costs would only make for fewer steps.
_MEMORY = Path("/dev/shm")
_MUTANTS = Path(__file__).parents[1] / "mutants"


def run(seconds: float, seed: int) -> Report:
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    tally.zeros.update(dict.fromkeys((REPLAYED, REFUSED, STRANGE), 0))
    rounds: tuple[Callable[[Path, random.Random, Tally, float], None], ...] = (one_server, two_servers, restore)
    with TemporaryDirectory(prefix="uponce-clock-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        controls(Path(folder), chance, tally)
        for number in itertools.count():
            share = (deadline - time.monotonic()) / max(1, len(rounds) - number)
            if number >= len(rounds) and share < SHORTEST_ROUND:
                break
            seconds_of_round = min(LONGEST_ROUND, max(SHORTEST_ROUND, share))
            rounds[number % len(rounds)](Path(folder) / f"round-{number}", chance, tally, seconds_of_round)
    return tally.report("clock", seed)


# --- a stepped clock


def one_server(folder: Path, chance: random.Random, tally: Tally, seconds: float) -> None:
    _stepped(Timekeeping(folder, tally, sweeping=chance.random() < 0.4), chance, seconds)


def two_servers(folder: Path, chance: random.Random, tally: Tally, seconds: float) -> None:
    _stepped(Timekeeping(folder, tally, servers=2), chance, seconds)


def _stepped(keeping: Timekeeping, chance: random.Random, seconds: float) -> None:
    """Episodes: the clocks go wrong, and right again."""
    deadline = time.monotonic() + seconds
    try:
        keeping.start()
        _set(keeping, chance, 0)
        asyncio.run(_episodes(keeping, chance, deadline))
        for _ in keeping.servers[1:]:
            keeping.tally.counts["rounds with two servers ten minutes apart"] += 1
        keeping.stop()
        _close(keeping)
    finally:
        keeping.kill()


async def _episodes(keeping: Timekeeping, chance: random.Random, deadline: float) -> None:
    """Play episodes. The first one always has a purge at a wrong time."""
    error: float = DAY
    while True:
        await _good_time(keeping, chance)
        await _torn(keeping, chance, error)
        keeping.tally.counts["steps away from the true time"] += 1
        await _wrong_time(keeping, chance)
        await _go_right(keeping, chance)
        if time.monotonic() > deadline:
            break
        error = chance.choice([HOUR, -HOUR, DAY, -DAY, chance.uniform(-2 * DAY, 2 * DAY), chance.uniform(-295, 295)])
    await _good_time(keeping, chance)


async def _good_time(keeping: Timekeeping, chance: random.Random) -> None:
    """Server 0 is right, or off by less than the skew: whatever is valid by the true time is taken, once."""
    await _replays(keeping)
    for _ in range(2):
        await _valid(keeping, chance)
    await _contest(keeping)
    while keeping.failed:
        await _try_again(keeping, keeping.failed.pop())
    for number in range(len(keeping.servers)):
        if not keeping.sweeping or keeping.is_right(number):
            await _at_the_servers_time(keeping, number)


async def _wrong_time(keeping: Timekeeping, chance: random.Random) -> None:
    """Signers on the servers' own machines have the same wrong time; they spend what will be true one day."""
    await keeping.purged()
    await _replays(keeping)
    for number in range(len(keeping.servers)):
        if keeping.is_right(number):
            await _valid(keeping, chance, number)
        elif not keeping.sweeping:
            await _at_the_servers_time(keeping, number)


async def _go_right(keeping: Timekeeping, chance: random.Random) -> None:
    """Set the clocks right, sometimes during an upload. Then a fresh signature shows what the wrong time has cost."""
    if keeping.sweeping:
        _set(keeping, chance, 0)
    else:
        await _torn(keeping, chance, 0)
    keeping.tally.counts["steps back to the true time"] += 1
    await _replays(keeping)
    if keeping.now <= keeping.forgotten:
        reply = await keeping.upload(keeping.signed(keeping.now))
        keeping.tally.counts["fresh signatures that a purge at a wrong time cost"] += reply.verdict == "stale_request"
        keeping.tally.expect(reply.verdict in DEFINITE, STRANGE, reply.verdict)
    await _pass_time(keeping, chance)


async def _pass_time(keeping: Timekeeping, chance: random.Random) -> None:
    """Wait until no purge at a wrong time is in the way, and some time more."""
    needed = max(0.0, keeping.forgotten + 2 - keeping.now)
    if keeping.sweeping:
        await asyncio.sleep(needed)
    else:
        keeping.advance(needed + chance.choice([1, 60, 600, HOUR, KEPT]))


# --- what the client does


async def _replays(keeping: Timekeeping) -> None:
    taken = await keeping.replay_all()
    keeping.tally.zeros[REPLAYED] += taken
    if taken:
        keeping.tally.notes.append(f"{taken} replays taken, errors {keeping.errors}, truth {keeping.truth}")


async def _valid(keeping: Timekeeping, chance: random.Random, number: int = 0) -> None:
    """Upload with a signature that is valid by the true time.

    A server that is off by less than the skew must accept it.
    """
    error, now = keeping.errors[number], keeping.now
    oldest = max(now - WINDOW + SKEW + MARGIN, keeping.forgotten + 1)
    newest = now if keeping.sweeping else now + min(SKEW, SKEW + error) - MARGIN
    stamp = chance.choice([now, max(oldest, newest), chance.uniform(oldest, max(oldest, newest))])
    await _taken(keeping, keeping.signed(max(stamp, oldest)), number)


async def _at_the_servers_time(keeping: Timekeeping, number: int) -> None:
    stamp = _servers_time(keeping, number)
    reply = await keeping.overwrite(stamp, number)
    if int(stamp) > keeping.forgotten:
        keeping.tally.expect(reply.verdict == "ok", REFUSED, f"{reply.body} at {keeping.errors}")


def _servers_time(keeping: Timekeeping, number: int) -> float:
    """Return the server's time. Where time cannot be made to pass, it is not ahead of the true time.

    After a wrong purge, the campaign would wait for it.
    """
    error = keeping.errors[number]
    return keeping.now + (min(0.0, error) if keeping.sweeping else error)


async def _taken(keeping: Timekeeping, fields: Fields, number: int = 0) -> None:
    reply = await keeping.upload(fields, number)
    keeping.tally.counts["valid signatures tried"] += 1
    note = f"{reply.body}, errors {keeping.errors}, off by {int(fields['timestamp']) - keeping.now:.0f}"
    keeping.tally.expect(reply.verdict == "ok", REFUSED, note)


async def _contest(keeping: Timekeeping) -> None:
    """Send one signature to all servers at once. Server 0 would accept it."""
    fields = keeping.signed(keeping.now)
    replies = await asyncio.gather(*(keeping.upload(fields, number) for number in range(len(keeping.servers))))
    winners = [reply.verdict for reply in replies].count("ok")
    keeping.tally.counts["signatures sent to all servers at once"] += 1
    keeping.tally.zeros[REPLAYED] += winners > 1
    keeping.tally.expect(winners > 0, REFUSED, [reply.body for reply in replies])


async def _torn(keeping: Timekeeping, chance: random.Random, error: float) -> None:
    """Make an upload that begins before the step and ends after it. If it fails, it has spent nothing."""
    number = chance.randrange(len(keeping.servers))
    before, errors = keeping.is_right(number), _errors(keeping, chance, error)
    stamp = int(_servers_time(keeping, number))
    if stamp <= keeping.forgotten:  # would not even begin
        keeping.step(errors)
        return
    fields = keeping.signed(stamp)
    reply = await keeping.torn_by(fields, number, errors, purge=chance.random() < 0.5)
    keeping.tally.counts["steps during an upload"] += 1
    keeping.tally.expect(reply.verdict in DEFINITE, STRANGE, reply.verdict)
    if before and keeping.is_right(number) and stamp > keeping.forgotten:
        keeping.tally.expect(reply.verdict == "ok", REFUSED, f"{reply.body} over a step to {errors}")
    if reply.verdict != "ok":
        keeping.failed.append(fields)


async def _try_again(keeping: Timekeeping, fields: Fields) -> None:
    """Repeat an upload that a step made fail. It has spent nothing, and works while it is valid."""
    if max(keeping.forgotten, keeping.now - WINDOW + SKEW + MARGIN) < int(fields["timestamp"]) < keeping.now:
        keeping.tally.counts["uploads repeated after a step had made them fail"] += 1
        await _taken(keeping, fields)


def _errors(keeping: Timekeeping, chance: random.Random, error: float) -> list[float]:
    """Two servers are ten minutes apart, whatever the first one's error; a right one is off by less than the skew."""
    first = error or chance.choice([0, chance.uniform(MARGIN - SKEW, SKEW - MARGIN)])
    return [first + number * chance.choice([APART, -APART]) for number in range(len(keeping.servers))]


def _set(keeping: Timekeeping, chance: random.Random, error: float) -> None:
    keeping.step(_errors(keeping, chance, error))


# --- a restore


def restore(folder: Path, chance: random.Random, tally: Tally, seconds: float) -> None:
    """Follow the guide: copy, lose, restore, fence, serve."""
    keeping = Timekeeping(folder, tally)
    try:
        keeping.start()
        asyncio.run(_spend(keeping, chance))
        kept, before = dict(keeping.receipts), len(keeping.spent)
        _lose(keeping, folder, chance)
        _command(keeping, "fence")
        _bring_key(keeping)
        keeping.receipts = kept
        tally.counts["restores"] += 1
        tally.counts["spent signatures that a restore forgot"] += len(keeping.spent) - before
        tally.inside += len(keeping.spent) - before
        keeping.servers[0].start()
        asyncio.run(_after_the_fence(keeping, chance))
        keeping.stop()
        _command(keeping, "sweep", "--grace", "0")
        _close(keeping, FOUR)
    finally:
        keeping.kill()


async def _spend(keeping: Timekeeping, chance: random.Random) -> None:
    """Among them what is dated as far ahead as the skew allows."""
    await asyncio.gather(*(_valid(keeping, chance) for _ in range(8)))
    await _taken(keeping, keeping.signed(keeping.now + SKEW - 1))
    await keeping.overwrite(keeping.now)


async def _spend_later(keeping: Timekeeping) -> None:
    for stamp in (keeping.now, keeping.now + SKEW - 1):
        await _taken(keeping, keeping.signed(stamp, key=LATER))


async def _after_the_fence(keeping: Timekeeping, chance: random.Random) -> None:
    await _replays(keeping)
    fresh = await keeping.upload(keeping.signed(keeping.now))
    keeping.tally.counts["fresh signatures refused while a fence lasts"] += fresh.verdict == "stale_request"
    keeping.advance(SKEW + 1)
    keeping.forgotten = int(keeping.now) - 1
    await _spend(keeping, chance)
    await _spend_later(keeping)
    await _replays(keeping)
    keeping.advance(HOUR)
    await _replays(keeping)


def _lose(keeping: Timekeeping, folder: Path, chance: random.Random) -> None:
    """Copy. Then a key comes, and signatures of all keys are spent. Then only the copy is left."""
    _back_up(keeping, folder)
    _bring_key(keeping)
    asyncio.run(_spend(keeping, chance))
    asyncio.run(_spend_later(keeping))
    keeping.stop()
    _put_back(keeping, folder)


def _bring_key(keeping: Timekeeping) -> None:
    line = f"cloudinary://{LATER.key}:{LATER.secret}@{keeping.servers[0].cloud}"
    done = uponce("keys", "import", "--data", keeping.data_dir, stdin=line)
    assert done.code == 0, done


def _back_up(keeping: Timekeeping, folder: Path) -> None:
    media = keeping.data_dir / "media"
    shutil.copytree(media, folder / "media")
    with (
        closing(sqlite3.connect(keeping.data_dir / "uponce.db")) as source,
        closing(sqlite3.connect(folder / "copy.db")) as copy,
    ):
        source.backup(copy)
    shutil.copytree(media, folder / "media", dirs_exist_ok=True)


def _put_back(keeping: Timekeeping, folder: Path) -> None:
    for name in ("uponce.db", "uponce.db-wal", "uponce.db-shm"):
        (keeping.data_dir / name).unlink(missing_ok=True)
    shutil.copyfile(folder / "copy.db", keeping.data_dir / "uponce.db")
    shutil.copytree(folder / "media", keeping.data_dir / "media", dirs_exist_ok=True)


def _command(keeping: Timekeeping, *words: str) -> None:
    done = in_a_process(*words, "--data", keeping.data_dir, env=keeping.clocks[0].env)
    assert done.code == 0, done


def _close(keeping: Timekeeping, only: tuple[str, ...] = ("lost", "orphans", "hollow")) -> None:
    """Audit.

    A purge leaves the audit of grants that the ledger has forgotten, so `double` is counted in the audit alone.
    """
    keeping.tally.audit(keeping.data_dir, keeping.receipts.values(), only)
    twice = "(SELECT 1 FROM audit WHERE event = 'spent' GROUP BY grant_key HAVING count(*) > 1)"
    keeping.tally.zeros["double"] += count(keeping.data_dir, twice)
    dropped = len(keeping.spent) - count(keeping.data_dir, "grants WHERE uses > 0")
    keeping.tally.counts["spent signatures whose row was purged"] += dropped if len(only) < len(FOUR) else 0


# --- what must be found


def controls(folder: Path, chance: random.Random, tally: Tally) -> None:
    """Each server forgets what it must not; the signatures are all valid by their time, and replayed at the end."""

    def within(name: str, play: Callable[[Path], int]) -> None:
        until_red(tally, name, seeded(chance, lambda chance: play(folder / f"control-{chance.getrandbits(40)}")))

    steps = SKEW - MARGIN, [(WINDOW + MARGIN, 0.0)]
    within("replays taken by a purge by time of use", lambda place: _forgetful(place, "purge_by_time_of_use", *steps))
    there_and_back = 0, [(0, DAY), (0, 0)]
    within(
        "replays taken by a purge without watermark",
        lambda place: _forgetful(place, "purge_without_watermark", *there_and_back),
    )
    within("replays taken after a restore without a fence", partial(_replayed, fenced=False))
    within("replays taken by a key that comes back after a forgotten fence", partial(_replayed, fenced=True))


def _forgetful(folder: Path, mutant: str, offset: float, steps: Sequence[tuple[float, float]]) -> int:
    """Spend what is dated so far from now; then each step lets time pass, sets the clock and waits for the purge."""
    keeping = Timekeeping(folder, Tally(), mutant=str(_MUTANTS / f"{mutant}.py"))

    async def story() -> int:
        spent = (keeping.signed(keeping.now + offset) for _ in range(CONTROL_SIGNATURES))
        await asyncio.gather(*(_taken(keeping, fields) for fields in spent))
        for passing, error in steps:
            keeping.advance(passing)
            keeping.step([error])
            await keeping.emptied()
        return await keeping.replay_all()

    try:
        keeping.start()
        return asyncio.run(story())
    finally:
        keeping.kill()


def _replayed(folder: Path, *, fenced: bool) -> int:
    """Restore without a fence, or with a fence that is forgotten before the later key comes back."""
    keeping = Timekeeping(folder, Tally())
    try:
        keeping.start()
        _lose(keeping, folder, random.Random(0))
        if fenced:
            _command(keeping, "fence")
            with closing(sqlite3.connect(keeping.data_dir / "uponce.db")) as database, database:
                database.execute("DELETE FROM fences")
            _bring_key(keeping)
        keeping.servers[0].start()
        return asyncio.run(keeping.replay_all())
    finally:
        keeping.kill()
