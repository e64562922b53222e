"""The local blob store on a real disk: the order of its system calls, and what it makes of their failures."""

import asyncio
import errno
import json
import os
import random
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters.descriptors import descriptors
from tests.adapters.one_blob import KEY, MUTANTS, Outcome, code_of
from tests.adapters.packing import put
from tests.contract.stores import local_of
from uponce.adapters import files
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.system import RandomIds
from uponce.core.errors import SettingRefused, StorageFull, StorageUnavailable

ROOT = Path(__file__).parents[2]
MEBIBYTE = 1024 * 1024
SPOOLED = f"spool/{KEY}"
SHARD = f"blobs/{KEY[:2]}"
PUBLISHED = f"{SHARD}/{KEY}"


def works(*command: str) -> bool:
    return shutil.which(command[0]) is not None and subprocess.run(command, check=False).returncode == 0


needs_strace = pytest.mark.skipif(
    not works("strace", "-qq", "-o", "/dev/null", "true"),
    reason="NOT TESTED: strace is missing or forbidden; allow it",
)


def one_blob(root: Path, *arguments: str, strace: Sequence[str] = ()) -> Outcome:
    traced = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none", *strace) if strace else ()
    done = subprocess.run(
        [*traced, sys.executable, "-m", "tests.adapters.one_blob", str(root), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return Outcome(**json.loads(done.stdout))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Blobs]:
    with opened(tmp_path / "media") as store:
        yield store


@contextmanager
def opened(root: Path) -> Iterator[Blobs]:
    store = LocalBlobs(root, ids=RandomIds())
    try:
        store.open_store()
        yield store
    finally:
        store.close()


# What a power cut would find.


def calls(within: Path, root: Path, *arguments: str) -> list[str]:
    """The system calls that change or sync anything in a folder, as `call path`, in their order."""
    log = within / "calls.strace"
    names = "trace=mkdir,mkdirat,write,writev,pwrite64,fsync,fdatasync,rename,renameat,renameat2"
    outcome = one_blob(root, *arguments, strace=("-y", "-e", names, "-o", str(log)))
    assert (outcome.code, outcome.left) == ("ok", [PUBLISHED])
    lines = log.read_text().splitlines()
    assert not [line for line in lines if "unfinished" in line], "two threads at once: the order is not certain"
    found = [re.match(r'\d+ +(\w+)\((?:\d+<|[^"]*")([^>"]+)[>"].* = \d+$', line) for line in lines]
    ours = [match for match in found if match and match[2].startswith(str(within))]
    return [f"{match[1]} {os.path.relpath(match[2], root)}" for match in ours]


def disorder(seen: list[str]) -> str:
    """How a power cut could lose an acknowledged blob; empty when it could not."""
    steps = [f"writev {SPOOLED}", f"fsync {SPOOLED}", f"rename {SPOOLED}", f"fsync {SHARD}"]
    if missing := [step for step in steps if step not in seen]:
        return f"missing {missing}"
    first_sync, rename = (seen.index(step) for step in steps[1:3])
    last_write, last_sync = (len(seen) - 1 - seen[::-1].index(step) for step in (steps[0], steps[3]))
    return "" if last_write < first_sync < rename < last_sync else f"wrong order {seen}"


@needs_strace
@pytest.mark.parametrize("mebibytes", ["1", "5"])
def test_bytes_are_durable_before_their_name_and_the_name_before_the_answer(tmp_path: Path, mebibytes: str) -> None:
    assert disorder(calls(tmp_path, tmp_path / "media", mebibytes)) == ""


@needs_strace
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_check_of_the_order_sees_each_mutant(tmp_path: Path, mutant: str) -> None:
    assert disorder(calls(tmp_path, tmp_path / "media", "1", mutant)) != ""


@needs_strace
def test_every_new_folder_is_durable_before_the_store_opens(tmp_path: Path) -> None:
    """Also the parents of a folder that does not exist yet."""
    root = tmp_path / "a" / "b" / "media"
    root.parent.parent.mkdir()
    seen = calls(tmp_path, root, "1")
    before = seen[: seen.index(f"writev {SPOOLED}")]
    made = {call.removeprefix("mkdir "): number for number, call in enumerate(before) if call.startswith("mkdir ")}
    synced = {call.removeprefix("fsync "): number for number, call in enumerate(before) if call.startswith("fsync ")}
    assert {".", "..", "spool", "blobs", SHARD} <= set(made)
    assert [name for name in made if synced.get(os.path.normpath(f"{name}/.."), -1) < made[name]] == []


# What the operating system refuses.


FAILURES = {
    "the file cannot be made": (SPOOLED, "openat:error=EMFILE", "storage_unavailable"),
    "the first write finds a full disk": (SPOOLED, "writev:error=ENOSPC:when=1", "storage_full"),
    "a later write finds a full disk": (SPOOLED, "writev:error=ENOSPC:when=3", "storage_full"),
    "the quota is used up": (SPOOLED, "writev:error=EDQUOT:when=2", "storage_full"),
    "a write fails": (SPOOLED, "writev:error=EIO:when=2", "storage_unavailable"),
    "the file cannot be synced": (SPOOLED, "fsync:error=EIO:when=1", "storage_unavailable"),
    "the sync finds a full disk": (SPOOLED, "fsync:error=ENOSPC:when=1", "storage_full"),
    "the rename fails": (SPOOLED, "rename:error=EIO", "storage_unavailable"),
    "the rename finds a full disk": (SPOOLED, "rename:error=ENOSPC", "storage_full"),
    "the folder cannot be synced": (SHARD, "fsync:error=EIO", "storage_unavailable"),
}


@needs_strace
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_spoils_the_stage_and_leaves_nothing(tmp_path: Path, failure: str) -> None:
    """A failed fsync happens once only: trying again must not turn it into a success."""
    path, inject, code = FAILURES[failure]
    root = tmp_path / "media"
    outcome = one_blob(root, "5", strace=("-P", str(root / path), "-e", f"inject={inject}", "-o", "/dev/null"))
    assert (outcome.code, outcome.left, outcome.descriptors) == (code, [], 0)
    assert outcome.again != "ok"


def test_without_failures_nothing_leaks(tmp_path: Path) -> None:
    """The control of the test above."""
    outcome = one_blob(tmp_path / "media", "5")
    assert (outcome.code, outcome.left, outcome.descriptors) == ("ok", [PUBLISHED], 0)


def test_a_write_that_takes_less_is_continued(store: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.writev
    data = [bytes([number % 256]) * (number % 5) * 1000 for number in range(1500)]

    def short(descriptor: int, blocks: Sequence[memoryview]) -> int:
        return os.write(descriptor, b"".join(blocks)[:1777]) if len(blocks) > 1 else whole(descriptor, blocks)

    async def scenario() -> None:
        spooled = await store.receive()
        for block in data:
            await spooled.write(block)
        assert (await spooled.seal()).size == len(b"".join(data))
        assert Path(spooled.path).read_bytes() == b"".join(data)
        await spooled.discard()

    monkeypatch.setattr(os, "writev", short)
    asyncio.run(scenario())


@pytest.mark.skipif(not files.NOWAIT, reason="this system reads nothing without waiting")
@pytest.mark.parametrize("size", [200_000, 2_500_000], ids=["small", "large"])
def test_bytes_of_which_only_some_are_in_memory_are_read_whole(
    store: Blobs, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """As when the system needs memory, and has dropped some of a file's pages."""
    data, whole = random.Random(1).randbytes(size), os.preadv

    def half(descriptor: int, blocks: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        return whole(descriptor, [memoryview(blocks[0])[: len(blocks[0]) // 2]], offset, flags)

    async def scenario() -> None:
        spooled = await store.receive()
        await spooled.write(data)
        await spooled.seal()
        assert b"".join([block async for block in spooled.blocks()]) == data
        await spooled.discard()
        (key,) = put(store, data)
        blob = await store.open(key)
        assert blob is not None
        assert await blob.read(0, size) == data
        assert await blob.read(100, 150_000) == data[100:150_100]
        blob.close()

    monkeypatch.setattr(os, "preadv", half)
    asyncio.run(scenario())


def test_a_spooled_file_that_is_cut_short_is_noticed(store: Blobs) -> None:
    async def scenario() -> None:
        spooled = await store.receive()
        await spooled.write(bytes(2_500_000))
        await spooled.seal()
        os.truncate(spooled.path, 2_400_000)
        with pytest.raises(StorageUnavailable, match="cannot be read"):
            [block async for block in spooled.blocks()]
        await spooled.discard()

    asyncio.run(scenario())


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0 or not works("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)):
        pytest.skip("NOT TESTED: only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_is_storage_full_and_works_again_afterwards(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "media", "4m"), opened(tmp_path / "media") as store:

        async def send(size: int) -> None:
            spooled = await store.receive()
            try:
                for _ in range(size // 65_536):
                    await spooled.write(bytes(65_536))
                await spooled.seal()
                await spooled.publish()
            except BaseException:
                await spooled.discard()
                raise

        with pytest.raises(StorageFull):
            asyncio.run(send(8 * MEBIBYTE))
        assert not list(store.folder.iterdir())
        asyncio.run(send(2 * MEBIBYTE))
        ballast = tmp_path / "media" / "ballast"
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(StorageFull):
            asyncio.run(store.ping())


def test_two_file_systems_are_refused(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "media" / "spool", "1m"), pytest.raises(SettingRefused, match="one file system"):  # noqa: SIM117
        with opened(tmp_path / "media"):
            pass


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "media").write_bytes(b"")
    with pytest.raises(SettingRefused, match="UPONCE_STORAGE"), opened(tmp_path / "media"):
        pass


# What is on the disk.


def test_files_and_folders_are_for_their_owner_only(store: Blobs) -> None:
    async def scenario() -> None:
        spooled = await store.receive()
        await spooled.write(b"abc")
        await spooled.seal()
        await spooled.publish()

    asyncio.run(scenario())
    root = store.folder.parent
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in [root, *root.rglob("*")]}
    assert modes == {(True, 0o700), (False, 0o600)}


def test_a_symbolic_link_is_not_followed(store: Blobs, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    local_of(store).path_of(KEY).symlink_to(tmp_path / "secret")
    with pytest.raises(StorageUnavailable):
        asyncio.run(store.open(KEY))


def test_what_others_left_in_the_folders_is_neither_listed_nor_swept(store: Blobs) -> None:
    """A stray name must not stop the sweeper either."""
    shard = local_of(store).path_of(KEY).parent
    strangers = [shard / "README", store.folder / ".nfs0001", store.folder / "folder", shard / KEY]
    for path in strangers[:2]:
        path.write_bytes(b"stray")
    for path in strangers[2:]:
        path.mkdir()

    async def scenario() -> None:
        assert await store.sweep_spool(0) == 0
        assert [blob async for blob in store.published()] == []

    asyncio.run(scenario())
    assert all(path.exists() for path in strangers)


def test_a_stage_is_as_old_as_its_last_write(store: Blobs) -> None:
    async def scenario() -> None:
        spooled = await store.receive()
        await spooled.seal()
        written = os.stat(spooled.path).st_mtime
        os.utime(spooled.path, (written, written - 1000))
        assert await store.sweep_spool(2000) == 0
        assert await store.sweep_spool(1000) == 1
        await spooled.discard()

    asyncio.run(scenario())


def test_a_missing_folder_is_not_ready(store: Blobs) -> None:
    store.folder.rmdir()
    with pytest.raises(StorageUnavailable) as refused:
        asyncio.run(store.ping())
    assert "spool" in refused.value.detail and "spool" not in refused.value.message


# What a cancelled caller leaves.


@pytest.mark.parametrize("turns", range(1, 5))
def test_no_descriptor_leaks_when_an_open_or_a_discard_is_cancelled(store: Blobs, turns: int) -> None:
    """Cancelled after so many turns of the loop: before, while, and after a thread does the work."""

    async def cancelled(work: asyncio.Task[object]) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    async def scenario() -> None:
        kept = await store.receive()
        await kept.seal()
        await kept.publish()
        for _ in range(50):
            spooled = await store.receive()
            await spooled.write(bytes(MEBIBYTE))
            await cancelled(asyncio.create_task(spooled.discard()))
            await cancelled(asyncio.create_task(store.open(kept.key)))
        await store.ping()
        while list(store.folder.iterdir()):
            await asyncio.sleep(0.01)
        while descriptors(store.folder.parent):  # a thread may still be at it; a leak ends in the time-out
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(scenario(), 120))


def test_errors_are_those_of_the_caller_who_asked(store: Blobs) -> None:
    """A spooled file that failed says so again, and does not take others with it."""

    async def scenario() -> None:
        broken, healthy = await store.receive(), await store.receive()
        os.mkdir(broken.path)
        for _ in range(2):  # so many may be under way
            await broken.write(bytes(MEBIBYTE))
        codes = [await code_of(work) for work in (broken.write(bytes(MEBIBYTE)), broken.seal(), broken.publish())]
        assert codes == ["storage_unavailable"] * 3
        await broken.discard()
        await healthy.seal()
        await healthy.publish()

    asyncio.run(scenario())


@pytest.mark.proof
def test_memory_stays_flat_however_large_the_file(tmp_path: Path) -> None:
    """300 MB through one spooled file."""
    outcome = one_blob(tmp_path / "media", "300")
    shutil.rmtree(tmp_path / "media")
    assert (outcome.code, outcome.left) == ("ok", [PUBLISHED])
    assert outcome.peak_kib < 16 * 1024
