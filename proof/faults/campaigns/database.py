"""A database that is locked, read-only or gone for a while, and one whose replies to COMMIT get lost.

The file is made read-only with chattr, a disk with mount: both need root and are left out, and counted as that,
without it.
"""

import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from proof.faults import lost_replies, sick_database
from proof.faults.control import seeded, until_red
from proof.faults.report import Report
from proof.faults.sick_database import DISTURBANCES
from proof.faults.small_disk import can_mount
from proof.faults.tally import Tally

LEFT_OUT = "left out: read-only files and disks, which need root"

_KEEPS_MOVED_FILE = str(Path(__file__).parents[1] / "mutants" / "keeps_moved_file.py")
_ROUNDS = 5


def run(seconds: float, seed: int) -> Report:
    deadline = time.monotonic() + seconds
    chance, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory(prefix="uponce-database-") as name, ThreadPoolExecutor(1) as pool:
        folder = Path(name)
        _controls(folder / "controls", chance, tally)
        servers = pool.submit(_servers, folder / "servers", random.Random(chance.random()), deadline)
        number = 0
        while time.monotonic() < deadline or not servers.done():
            number += 1
            lost_replies.lose_replies(folder / f"replies-{number}", chance, tally, _ROUNDS)
        tally.add(servers.result())
    return tally.report("database", seed)


def _servers(folder: Path, chance: random.Random, deadline: float) -> Tally:
    """Run one real server after the other, at least one. The time decides how many."""
    tally, names = Tally(), list(DISTURBANCES)
    folder.mkdir()
    if not (sick_database.can_freeze(folder) and can_mount(folder / "probe")):
        tally.counts[LEFT_OUT] += 1
        names.remove("read-only")
    else:
        sick_database.start_read_only(folder / "read-only", tally)
    number, took = 0, 0.0
    while not number or time.monotonic() + took < deadline:
        begun = time.monotonic()
        number += 1
        sick_database.disturb(folder / f"server-{number}", chance, tally, names)
        took = time.monotonic() - begun
    return tally


def _controls(folder: Path, chance: random.Random, tally: Tally) -> None:
    def discard(chance: random.Random) -> int:
        return lost_replies.hollow_when_discarding(
            folder / f"discarding-{chance.getrandbits(40)}", chance.randrange(2**32)
        )

    def move(chance: random.Random) -> int:
        found = Tally()
        where = folder / f"moved-{chance.getrandbits(40)}"
        sick_database.disturb(where, chance, found, ["gone"], program=(_KEEPS_MOVED_FILE,))
        return found.zeros[sick_database.GONE_BUT_STORED]

    until_red(tally, "an upload that deletes its bytes when the outcome is unknown", seeded(chance, discard))
    until_red(tally, "a server that goes on writing a file that was moved away", seeded(chance, move))
