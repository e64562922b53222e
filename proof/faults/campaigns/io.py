"""What an upload asks of the operating system, refused: system calls, writes cut short, full disks, no descriptors.

Needs strace; the full disks need root and are left out, and counted as that, without it.
"""

import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from proof.faults import few_descriptors, small_disk, system_calls
from proof.faults.control import seeded, until_red
from proof.faults.report import Report
from proof.faults.system_calls import (
    GATHERED,
    IGNORES_FDATASYNC,
    IGNORES_FSYNC,
    STREAMED,
    SWALLOWS_SHORT_WRITES,
    SYNCS,
    UNSYNCED,
    Fault,
    Scene,
)
from proof.faults.tally import Tally

LEFT_OUT = "left out: full disks, which need root"

_FAULTS_A_ROUND = 10
_ROUNDS_A_SERVER = 6


def run(seconds: float, seed: int) -> Report:
    deadline = time.monotonic() + seconds
    if not system_calls.can_trace():
        pytest.skip("NOT TESTED: strace is missing or forbidden; install or allow it")
    chance, tally = random.Random(seed), Tally()
    with tempfile.TemporaryDirectory(prefix="uponce-io-") as name:
        folder = Path(name)
        streamed = system_calls.overwriting(folder / "streamed", STREAMED)
        gathered = system_calls.overwriting(folder / "gathered", GATHERED)
        faults = {scene.subject: system_calls.faults(scene) for scene in (streamed, gathered)}
        _controls(streamed, gathered, faults, chance, tally)
        _servers(folder / "first", chance, tally)
        rounds, left = 0, {subject: system_calls.in_turns(every, chance) for subject, every in faults.items()}
        while time.monotonic() < deadline or not rounds:
            for scene in (streamed, gathered):
                coming = left[scene.subject] or system_calls.in_turns(faults[scene.subject], chance)
                for fault in coming[:_FAULTS_A_ROUND]:
                    system_calls.suffer(scene, fault, tally)
                left[scene.subject] = coming[_FAULTS_A_ROUND:]
                system_calls.cut_short(scene, chance, tally)
                system_calls.write_little(scene, chance, tally)
            rounds += 1
            if rounds % _ROUNDS_A_SERVER == 0:
                _servers(folder / f"round-{rounds}", chance, tally)
    return tally.report("io", seed)


def _servers(folder: Path, chance: random.Random, tally: Tally) -> None:
    """Run a server for each way in which a disk can be full, and one without descriptors."""
    few_descriptors.exhaust(folder / "descriptors", chance, tally)
    if not small_disk.can_mount(folder / "probe"):
        tally.counts[LEFT_OUT] += 1
        return
    for number, disk in enumerate(small_disk.DISKS):
        small_disk.fill_and_free(folder / f"disk-{number}", disk, chance, tally)


def _controls(
    streamed: Scene, gathered: Scene, faults: Mapping[str, list[Fault]], chance: random.Random, tally: Tally
) -> None:
    """Find stores that ignore what the system returns."""
    syncs = [fault for fault in faults[STREAMED] if fault.call in SYNCS and "spool" in fault.path]
    of_packs = [fault for fault in faults[GATHERED] if fault.call == "fdatasync" and "packs" in fault.path]

    def ignore(chance: random.Random) -> int:
        found = Tally()
        system_calls.suffer(streamed, chance.choice(syncs), found, IGNORES_FSYNC)
        return found.zeros[UNSYNCED]

    def ignore_pack(chance: random.Random) -> int:
        found = Tally()
        system_calls.suffer(gathered, chance.choice(of_packs), found, IGNORES_FDATASYNC)
        return found.zeros[UNSYNCED]

    def swallow(chance: random.Random) -> int:
        found = Tally()
        system_calls.cut_short(streamed, chance, found, SWALLOWS_SHORT_WRITES)
        return found.zeros["hollow"]

    until_red(tally, "a store that ignores a failed fsync", seeded(chance, ignore))
    until_red(tally, "a store that ignores a failed fdatasync of a pack", seeded(chance, ignore_pack))
    until_red(tally, "a store that takes a short write for a whole one", seeded(chance, swallow))
