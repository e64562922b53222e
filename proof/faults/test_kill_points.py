"""The campaign of kill points: a sample of all steps, and of an overwriting upload more of them, or every one."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from proof.faults.campaigns.points import is_staged, points, run, sampled, strike_all
from proof.faults.scenes import Scene, deleting, grouping, overwriting
from proof.faults.scenes_in_parts import last_chunk, last_patch
from proof.faults.strace import ABSENT, can_trace
from proof.faults.tally import Tally

SECONDS = 900  # some hundred processes under strace: the number of points is fixed, whatever the machine does
SAMPLES = (pytest.param(24, id="a sample"), pytest.param(None, id="all", marks=pytest.mark.full))

pytestmark = [pytest.mark.proof, pytest.mark.skipif(not can_trace(), reason=ABSENT)]


@pytest.mark.timeout(SECONDS)
def test_a_sample_of_all_points() -> None:
    """Whatever is killed wherever, nothing is lost, doubled or left; steps in a wrong order are found out."""
    report = run(20, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0


@pytest.mark.parametrize("most", SAMPLES)
def test_an_overwrite_killed_at_every_step(tmp_path: Path, most: int | None) -> None:
    calls = strike(tmp_path, overwriting(tmp_path / "origin"), most)
    assert {"writev", "fsync", "rename", "pwrite64", "fdatasync", "unlink"} <= calls


@pytest.mark.parametrize("most", SAMPLES)
def test_an_overwrite_in_a_group_killed_at_every_step(tmp_path: Path, most: int | None) -> None:
    """The bytes are written into a pack, and the replaced bytes are punched out of another pack."""
    calls = strike(tmp_path, grouping(tmp_path / "origin"), most)
    assert {"writev", "fdatasync", "pwrite64", "fallocate"} <= calls


@pytest.mark.parametrize("most", SAMPLES)
def test_a_delete_killed_at_every_step(tmp_path: Path, most: int | None) -> None:
    """Acknowledged, it is gone and stays gone; row and bytes agree; what made the asset stays spent."""
    calls = strike(tmp_path, deleting(tmp_path / "origin"), most)
    assert {"pwrite64", "fdatasync", "unlink"} <= calls


def strike(tmp_path: Path, scene: Scene, most: int | None) -> set[str]:
    """Nothing is broken by a kill at any of so many points; the system calls before which it struck."""
    tally, every = Tally(), sampled(points(scene, tmp_path / "watched"), most)
    strike_all(tmp_path, [(scene, point) for point in every], tally, math.inf)
    print(f"{tally.inside} points, {tally.violations} with violations")
    assert not tally.violations, tally.notes
    assert tally.inside == len(every)
    return {point.call for point in every}


@pytest.mark.parametrize("scene_of", [last_chunk, last_patch])
def test_the_bytes_of_a_last_part_killed_at_every_step(tmp_path: Path, scene_of: Callable[[Path], Scene]) -> None:
    """From the first byte to the publication; the steps of the database are in the sample of all points."""
    tally, scene = Tally(), scene_of(tmp_path / "origin")
    of_bytes = [point for point in points(scene, tmp_path / "watched") if is_staged(point)]
    strike_all(tmp_path, [(scene, point) for point in of_bytes], tally, math.inf)
    print(f"{tally.inside} points, {tally.violations} with violations")
    assert not tally.violations, tally.notes
    assert tally.inside == len(of_bytes)
    assert {"pwrite64", "fdatasync", "ftruncate", "fsync", "rename"} <= {point.call for point in of_bytes}
