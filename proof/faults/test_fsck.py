"""`uponce fsck` as an operator runs it: exit codes, JSON, and no false alarm beside a server at work."""

import asyncio
import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proof.faults.clients import connected, form
from proof.faults.operator import give_key
from tests.app.planted import OLD, PLANTERS, keys, plant_healthy, put_assets, put_packed
from tests.e2e.commands import Done, uponce
from tests.server import Key, Server
from tests.world import World
from uponce.app.fsck import fsck as check_store

CLIENTS = 8
CHECKS = 4
OLD_FILES, OLD_PACKED = 600, 200
GRACE_SECONDS = 300


def fsck(folder: Path, *words: str) -> Done:
    return uponce("fsck", "--data", folder, *words)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Yield a store in the default layout, on which no process works. So the second look needs no wait."""
    monkeypatch.setattr("uponce.cli.fsck.fsck", partial(check_store, settle_seconds=0))
    give_key(tmp_path)
    with closing(World(tmp_path)) as world:
        world.clock.time = os.stat(tmp_path).st_mtime
        plant_healthy(world, 10)
        yield world


def test_a_clean_store_is_told_in_one_glance(store: World) -> None:
    done = fsck(store.path.parent)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == (
        "10 assets, 10 blobs of 50 bytes, 0 of them read; 0 uploads in flight\ndamage: 0, warning: 0, removable: 0\n"
    )
    assert "10 of them read" in fsck(store.path.parent, "--deep").stdout


@pytest.mark.usefixtures("few_places")
def test_json_has_every_finding_with_its_kind_and_severity(store: World) -> None:
    hollow, orphans = PLANTERS["hollow"](store, 3), PLANTERS["orphan"](store, 12)
    done = fsck(store.path.parent, "--json")
    assert (done.code, done.stderr) == (1, "")
    told: dict[str, Any] = json.loads(done.stdout)
    findings = told.pop("findings")
    assert told == {
        "deep": False,
        "examined": {"assets": 13, "blobs": 22, "bytes": 110, "hashed": 0, "in_flight": 0},
        "damage": 3,
        "warning": 0,
        "removable": 12,
        "counts": {"hollow": 3, "orphan": 12},
    }
    assert {f["subject"] for f in findings if (f["kind"], f["severity"]) == ("hollow", "damage")} == hollow
    assert {f["subject"] for f in findings if (f["kind"], f["severity"]) == ("orphan", "removable")} == orphans
    assert all(set(finding) == {"kind", "severity", "subject", "detail"} for finding in findings)


@pytest.mark.usefixtures("few_places")
def test_the_text_says_what_it_is_what_to_do_and_how_many_more(store: World) -> None:
    PLANTERS["hollow"](store, 13)
    done = fsck(store.path.parent)
    assert done.code == 1
    heading, *subjects, more, _, summary = done.stdout.splitlines()
    assert heading == (
        "damage    13 hollow: assets whose bytes are missing: check the disk, restore these blobs from a backup. In a "
        "bucket, copy the objects. In a local folder, copy the files with `cp -a` from `media/blobs` of the backup to "
        "the same place. If `uponce fsck --deep` still names an asset, stop the server, run `uponce backup` into the "
        "folder of the last backup, or the uploads since then are lost. Only then move `uponce.db*` away, and "
        "run `uponce restore --reuse-storage`"
    )
    assert len(subjects) == 10
    assert all("demo/raw/upload/" in line and "it does not exist" in line for line in subjects)
    assert more.strip() == "and 3 more (--json lists them)"
    assert summary == "damage: 13, warning: 0, removable: 0"


@pytest.mark.usefixtures("few_places")
@pytest.mark.parametrize("kind", sorted(PLANTERS))
def test_the_exit_code_is_1_for_damage_alone(store: World, kind: str) -> None:
    """And a sweep puts right what is only removable."""
    PLANTERS[kind](store, 1)
    harmless = kind in ("orphan", "condemned", "spooled", "overdue", "watermark")
    assert fsck(store.path.parent, "--deep").code == (0 if harmless else 1)
    if kind in ("orphan", "condemned", "spooled"):
        assert uponce("sweep", "--data", store.path.parent).code == 0
        assert json.loads(fsck(store.path.parent, "--json").stdout)["removable"] == 0


@pytest.mark.usefixtures("few_places")
def test_the_grace_time_can_be_given(store: World) -> None:
    (store.media / "spool" / ("a" * 32)).write_bytes(b"half")
    assert json.loads(fsck(store.path.parent, "--json").stdout)["examined"]["in_flight"] == 1
    assert json.loads(fsck(store.path.parent, "--json", "--grace", "0").stdout)["counts"] == {"spooled": 1}


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    done = fsck(tmp_path / "nowhere")
    assert done.code == 1
    assert "There is no uponce in" in done.stderr


@pytest.mark.proof
def test_no_false_alarm_beside_a_busy_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads and overwrites all the while, in two processes; the last check, in silence, reads every byte."""
    data_dir = tmp_path / "data"
    with aged(data_dir, monkeypatch) as (world, old), Server(data_dir, workers=2) as server:
        server.cloud, server.browser = "demo", Key(world.browser.api_key, world.browser.secrets[0])
        uploads, checks = asyncio.run(_under_load(server, old))
        server.stop()
        last = json.loads(fsck(data_dir, "--json", "--deep", "--grace", "0").stdout)
    print(f"fsck: {uploads} uploads beside {len(checks)} checks, {len(old)} old assets left")
    assert uploads > 50
    assert [check["findings"] for check in checks] == [[]] * CHECKS
    assert all(check["examined"]["assets"] >= OLD_FILES for check in checks)
    assert (last["findings"], last["examined"]["in_flight"]) == ([], 0)
    assert last["examined"]["hashed"] == last["examined"]["assets"] == last["examined"]["blobs"]


@contextmanager
def aged(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[World, list[str]]]:
    """Yield a store whose assets are older than any grace time, files and blobs in packs, and their public_ids.

    Once one is overwritten, its old blob is a suspect on its way out. No upload on its way in is one, however slow.
    """
    data_dir.mkdir()
    give_key(data_dir)
    with closing(World(data_dir)) as world:
        world.clock.time = time.time()
        plant_healthy(world, OLD_FILES)
        with monkeypatch.context() as patched:
            patched.setattr(
                "uponce.adapters.store.packs.time", SimpleNamespace(time=lambda: OLD, monotonic=time.monotonic)
            )
            packed = put_packed(world, *[b"whole"] * OLD_PACKED)
        put_assets(world, packed)
        names = [*keys("healthy", OLD_FILES), *packed]
        random.Random(1).shuffle(names)
        yield world, names


async def _under_load(server: Server, old: list[str]) -> tuple[int, list[dict[str, Any]]]:
    is_over = False
    uploads = 0
    share = len(old) // CHECKS
    later = len(old)  # so many stay for later: each check has some that are overwritten beside it

    async def client(lane: int) -> None:
        nonlocal uploads
        async with connected(server) as connection:
            while not is_over:
                # Every other upload overwrites an old asset, or later one of the lane's.
                public_id = f"{lane}-{uploads}" if uploads % 2 else old.pop() if len(old) > later else f"{lane}-0"
                fields = server.signed({"public_id": public_id, "nonce": f"{lane}-{uploads}"})
                reply = await connection.ask(form(server, fields, os.urandom(20_000)))
                assert reply.verdict == "ok", reply
                uploads += 1

    clients = [asyncio.create_task(client(lane)) for lane in range(CLIENTS)]
    checks = []
    for number in range(CHECKS):
        while uploads < 20 * (number + 1):
            assert not any(each.done() for each in clients)
            await asyncio.sleep(0.01)
        words = ("--json", "--deep") if number == CHECKS - 1 else ("--json",)
        later, before = share * (CHECKS - 1 - number), len(old)
        done = await asyncio.to_thread(fsck, server.data_dir, *words, "--grace", str(GRACE_SECONDS))
        assert len(old) < before
        checks.append(json.loads(done.stdout))
        assert done.code == 0, done.stdout
    is_over = True
    await asyncio.gather(*clients)
    return uploads, checks
