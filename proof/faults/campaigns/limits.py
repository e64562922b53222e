"""A server whose limits and buffers are tiny, so that small files cross each of them, many at a time.

Clients upload in all ways, replay, race, overwrite, delete, list and read. What is delivered is compared to the byte.
In the end a sweep and a purge work in many batches beside readers, `uponce fsck --deep` finds nothing, and on SQLite a
backup is restored. proof/faults/tiny_limits.py has the limits.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from proof.faults.audit import count
from proof.faults.control import seeded, until_red
from proof.faults.fleet import Fleet, Opened, on_sqlite
from proof.faults.operator import add_deleting_key
from proof.faults.place import Place
from proof.faults.report import Report
from proof.faults.tally import Tally
from proof.faults.tiny_limits import SETTINGS
from proof.faults.traffic import Traffic

LANES = 32
SHORTEST_ROUND, LONGEST_ROUND = 4.0, 60.0
ACTS = {
    "upload": 12,
    "stored_again": 3,
    "series": 4,
    "crowd": 1,
    "race": 1,
    "refused": 1,
    "repeat": 1,
    "overwrite": 1,
    "delete": 1,
    "pipeline": 2,
    "flood": 1,
    "listings": 1,
}
ORPHANS = 10  # more than a batch
# The second line is for busy machines. The third lets no server purge while clients still use their signatures.
OWN = {
    "UPONCE_TRUSTED_PROXIES": "127.0.0.1",
    **{f"UPONCE_{name}_SECONDS": "300" for name in "HEAD IDLE RATE UNVERIFIED WRITE DATABASE STORAGE".split()},
    "UPONCE_SWEEP_SECONDS": "600",
}
PAGE = 17
CONTROL_SECONDS = 3.0

_STARTER = ("-m", "proof.faults.tiny_limits")
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Broken:
    """A broken variant, and the acts of so many clients that find it in most tries: in the figure `zero`."""

    name: str
    module: str
    acts: Mapping[str, int]
    zero: str
    lanes: int = LANES


_OTHER_BYTES = "reads of other bytes"
_LACKING = Broken(
    "deliveries that lack a byte after a piece",
    "loses_a_byte_of_a_block",
    {"upload": 1, "stored_again": 3},
    _OTHER_BYTES,
)
BROKEN = (
    Broken("uploads whose pieces changed places", "flushes_side_by_side", {"crowd": 1}, _OTHER_BYTES, lanes=1),
    _LACKING,
    Broken(
        "listings that lack an asset after a page",
        "skips_after_a_page",
        {"upload": 4, "listings": 1},
        "listings that lack an asset",
    ),
)
BROKEN_S3 = (
    # The server notices the hole and refuses. So this one shows that small files cross a page of parts.
    Broken("uploads that lack a part after a page", "skips_after_a_page", {"series": 1}, "uploads that were refused"),
    _LACKING,
)


def run(
    seconds: float,
    seed: int,
    *,
    name: str = "limits",
    opened: Opened = on_sqlite,
    servers: int = 1,
    controls: Sequence[Broken] = BROKEN,
) -> Report:
    chance, tally = random.Random(seed), Tally()
    with TemporaryDirectory(prefix=f"uponce-{name}-") as folder:
        for number, broken in enumerate(controls):
            _control(Path(folder) / f"control-{number}", broken, chance, tally, opened, servers)
        rounds, deadline = 0, time.monotonic() + seconds
        while not rounds or deadline - time.monotonic() > SHORTEST_ROUND:
            rounds += 1
            share = min(max(deadline - time.monotonic(), SHORTEST_ROUND), LONGEST_ROUND)
            _round(Path(folder) / f"round-{rounds}", chance, tally, opened, servers, share)
    tally.counts["rounds"] += rounds
    return tally.report(name, seed)


def _fleet(folder: Path, opened: Opened, servers: int, module: str = "uponce.cli") -> AbstractContextManager[Fleet]:
    folder.mkdir()
    return opened(folder, servers, program=(*_STARTER, module), **SETTINGS, **OWN)


def _round(folder: Path, chance: random.Random, tally: Tally, opened: Opened, servers: int, seconds: float) -> None:
    with _fleet(folder, opened, servers) as fleet:
        deleting = add_deleting_key(fleet.place, fleet.first.cloud)
        traffic = Traffic(fleet, chance, tally, deleting=deleting)
        asyncio.run(_play(traffic, seconds))
        fleet.stop()
    _compare(folder, traffic)


async def _play(traffic: Traffic, seconds: float) -> None:
    end = time.monotonic() + seconds
    await traffic.play(lambda: time.monotonic() < end, LANES, ACTS)
    await traffic.listings()
    await _check_books(traffic)
    for _ in range(ORPHANS):
        traffic.fleet.place.media.add(f"{traffic.chance.getrandbits(128):032x}", b"no row names this blob")
    await asyncio.sleep(2)  # until each unfinished upload is older than UPONCE_SERIES_SECONDS
    _, swept = await asyncio.gather(traffic.read_all(LANES), asyncio.to_thread(_sweep, traffic))
    tally, place = traffic.tally, traffic.fleet.place
    tally.counts.update({f"swept: {name}": number for name, number in swept.items()})
    for name, expected in {"grants": traffic.spent, "series": traffic.left, "blobs": ORPHANS}.items():
        told = f"{name}: {swept[name]}, not {expected}"
        tally.expect(swept[name] == expected, "sweeps of too little or too much", told)
    for what in ("grants", "series", "series_parts"):
        tally.expect(not count(place, what), "sweeps of too little or too much", f"{count(place, what)} {what}")


async def _check_books(traffic: Traffic) -> None:
    """Compare the database with what the clients know."""
    tally, place = traffic.tally, traffic.fleet.place
    tally.audit(place, traffic.receipts, ("lost", "double", "hollow"))
    books = {
        "assets": len(traffic.receipts),
        "grants WHERE uses = 1": traffic.spent,
        "grants": traffic.spent,
        "series": traffic.left,
    }
    for what, expected in books.items():
        kept = count(place, what)
        tally.expect(kept == expected, "books that disagree with the clients", f"{what}: {kept}, not {expected}")
    ((refusals,),) = place.rows("SELECT coalesce(sum(count), 0) FROM audit WHERE code = 'signature_used'")
    told = f"{refusals} refusals, not {traffic.used}"
    tally.expect(refusals == traffic.used, "books that disagree with the clients", told)
    found = await traffic.pages(f"signatures?max_results={PAGE}", "signatures", "id")
    complete = len(found) == len(set(found)) == count(place, "grants")
    tally.expect(complete, "listings of signatures that are not complete", f"{len(found)}, {len(set(found))} different")


def _sweep(traffic: Traffic) -> dict[str, int]:
    """Sweep and purge everything, in batches, beside readers."""
    swept: dict[str, int] = {}
    for part in traffic.fleet.place.parts:
        done = _command(part, "sweep", "--grace", "0", "--json", UPONCE_SERIES_SECONDS="1")
        swept = {name: swept.get(name, 0) + number for name, number in json.loads(done).items()}
    return swept


def _compare(folder: Path, traffic: Traffic) -> None:
    """Check what is stored, by an own examination, by the command, and after a backup was restored."""
    tally, place = traffic.tally, traffic.fleet.place
    tally.audit(place, traffic.receipts, ("lost", "hollow", "orphans"))
    _examine(place, tally)
    if "UPONCE_DATABASE" not in place.environment:
        _command(place, "backup", f"{folder}/backup")
        restored = Place(folder / "restored")
        _command(restored, "restore", f"{folder}/backup")
        tally.audit(restored, traffic.receipts, ("lost", "hollow"))
        tally.counts["backups restored"] += 1
    _command(place, "sweep", UPONCE_AUDIT_DAYS="0")
    tally.expect(not count(place, "audit"), "sweeps of too little or too much", f"{count(place, 'audit')} audit")


def _examine(place: Place, tally: Tally) -> None:
    report = json.loads(_command(place.parts[0], "fsck", "--deep", "--grace", "0", "--json"))
    found = [f"{each['kind']} {each['subject']}" for each in report["findings"] if each["severity"] != "warning"]
    tally.counts["blobs read by fsck"] += report["examined"]["hashed"]
    tally.expect(not found, "found by fsck with tiny limits", found)


def _command(place: Place, *words: str, **settings: str) -> str:
    """Return what a command of `uponce` with tiny limits prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UPONCE_")}
    command = [sys.executable, *_STARTER, "uponce.cli", *words, "--data", str(place.data_dir)]
    done = subprocess.run(
        command,
        check=False,
        cwd=_ROOT,
        env={**environment, **SETTINGS, **OWN, **place.environment, **settings},
        capture_output=True,
        text=True,
    )
    if done.returncode > (words[0] == "fsck"):  # fsck ends with 1 when it has found damage
        raise AssertionError(
            f"{' '.join(words)} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def _control(folder: Path, broken: Broken, chance: random.Random, tally: Tally, opened: Opened, servers: int) -> None:
    """Find a broken server by some of the acts, in its own figure."""
    module = f"proof.faults.mutants.{broken.module}"
    with _fleet(folder, opened, servers, module) as fleet:

        def attempt(chance: random.Random) -> int:
            begun = chance.getrandbits(40)
            traffic = Traffic(fleet, chance, Tally(), begun, deleting=fleet.first.browser)

            def going() -> bool:
                return not traffic.tally.zeros[broken.zero] and time.monotonic() < end

            end = time.monotonic() + CONTROL_SECONDS
            asyncio.run(traffic.play(going, broken.lanes, broken.acts))
            return traffic.tally.zeros[broken.zero]

        until_red(tally, broken.name, seeded(chance, attempt))
