"""Groups of small blobs on a real disk: the order of the system calls, and what a failed one does to its group."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.adapters.one_group import GROUPS, MUTANTS, SIZES, Outcome, body, different, group
from tests.adapters.test_local_blobs import ROOT, needs_strace, opened
from uponce.app.ports import Body

CALLS = "trace=write,writev,pwrite64,pwritev,fsync,fdatasync"


def one_group(root: Path, *arguments: str, strace: Sequence[str] = ()) -> Outcome:
    traced = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none", *strace) if strace else ()
    done = subprocess.run(
        [*traced, sys.executable, "-m", "tests.adapters.one_group", str(root), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return Outcome(**json.loads(done.stdout))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_group_comes_back_in_its_order(tmp_path: Path, kind: type) -> None:
    bodies: list[Body] = [(kind(data), digest, type_) for data, digest, type_ in group(1)]
    with opened(tmp_path / "media") as store:
        keys = store.put_group(bodies)
        assert len(set(keys)) == len(SIZES)
        assert asyncio.run(different(store, keys, bodies)) == []
        assert store.put_group([]) == []


def test_blobs_of_a_group_are_deleted_one_by_one(tmp_path: Path) -> None:
    bodies = [body(b"abc"), body(b"def")]
    with opened(tmp_path / "media") as store:

        async def scenario() -> None:
            gone, kept = store.put_group(bodies)
            await store.delete(gone)
            assert await store.open(gone) is None
            assert [blob.key async for blob in store.published()] == [kept]
            assert await different(store, [kept], bodies[1:]) == []

        asyncio.run(scenario())


# What a power cut would find.


def disorder(tmp_path: Path, *arguments: str) -> str:
    """How a power cut could lose a group that was stored; empty when it could not."""
    log = tmp_path / "calls.strace"
    outcome = one_group(tmp_path / "media", *arguments, strace=("-y", "-e", CALLS, "-o", str(log)))
    assert outcome == Outcome(["ok"] * GROUPS, [], GROUPS * len(SIZES), 0)
    dirty: set[str] = set()
    for line in log.read_text().splitlines():
        found = re.match(r"\d+ +(\w+)\(\d+<([^>]+)>.* = \d+$", line)
        if found is None or "/blobs/" not in found[2]:
            continue
        call, path = found.groups()
        if "sync" in call:
            dirty.discard(path)
        else:
            dirty |= {path, str(Path(path).parent)}
    return f"not durable: {sorted(dirty)}" if dirty else ""


@needs_strace
def test_bytes_and_names_of_a_group_are_durable_when_it_is_stored(tmp_path: Path) -> None:
    assert disorder(tmp_path) == ""


@needs_strace
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_check_of_the_order_sees_each_mutant(tmp_path: Path, mutant: str) -> None:
    assert disorder(tmp_path, mutant) != ""


# What the operating system refuses.


FAILURES = {
    "the disk is full": ("writev:error=ENOSPC:when=2", "storage_full"),
    "a write fails": ("writev:error=EIO:when=2", "storage_unavailable"),
    "the bytes cannot be synced": ("fsync:error=EIO:when=2", "storage_unavailable"),
    "the folder cannot be synced": ("fsync:error=EIO:when=4", "storage_unavailable"),
}


@needs_strace
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_spoils_its_group_and_no_other(tmp_path: Path, failure: str) -> None:
    """The first group has no bytes in its first file, so its second write is that of the third."""
    inject, code = FAILURES[failure]
    one_group(tmp_path / "same")
    names = [path.relative_to(tmp_path / "same") for path in (tmp_path / "same").glob("blobs/*/*")]
    root = tmp_path / "media"
    paths = {root / path for name in names for path in (name, name.parent)}
    watched = [argument for path in paths for argument in ("-P", str(path))]
    outcome = one_group(root, strace=(*watched, "-e", f"inject={inject}", "-o", "/dev/null"))
    assert (outcome.codes, outcome.wrong) == ([code, "ok", "ok"], [])
    assert (outcome.listed, outcome.descriptors) == (len(SIZES) * (GROUPS - 1), 0)
