"""Servers and their bucket: what keeps one from starting, what a large file costs it, how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.databases import run
from tests.contract.stores import objects
from tests.stores import seaweedfs
from tests.stores.seaweedfs import BUCKET, SeaweedFS
from tests.stores.service import free_ports
from tests.stores.sick import Illness, sick
from uponce.cli.serve import _prepare
from uponce.config import load
from uponce.core.errors import SettingRefused, StorageUnavailable
from uponce.wiring import opened

ROOT = Path(__file__).parents[2]
OURS = ("UPONCE_", "AWS_", "AZURE_")


@pytest.fixture
def server() -> SeaweedFS:
    return seaweedfs.shared()


@pytest.fixture
def url(server: SeaweedFS) -> str:
    return server.fresh_url()


# What keeps it from starting.


def refusal(url: str, environment: dict[str, str], folder: Path) -> str:
    """What `uponce serve` says on its way out."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    done = subprocess.run(
        [sys.executable, "-m", "uponce", "serve", "--data", str(folder), "--port", "0"],
        env=environ | environment | {"UPONCE_STORAGE": url, "UPONCE_STORAGE_SECONDS": "60"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "CLOUDINARY_URL" not in done.stdout
    return done.stderr


def test_a_start_without_its_bucket_says_what_to_do(
    server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first of them through a real start, which takes a second or two."""
    known = server.environment
    nowhere = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_ports(1)[0]}"}
    for url, environment, cure in (
        ("s3://no-such-bucket/x", known, "create it, or correct UPONCE_STORAGE"),
        (f"s3://{BUCKET}", known | {"AWS_SECRET_ACCESS_KEY": "wrong"}, "Check the credentials"),
        (f"s3://{BUCKET}", known | nowhere, "check the endpoint and the network"),
        ("az://container", {}, "UPONCE_STORAGE=az://container"),
        ("ftp://somewhere", {}, "Use file:///path/to/folder, s3://bucket/prefix"),
        ("s3:///bucket", {}, "Use file:///path/to/folder, s3://bucket/prefix"),
    ):
        if cure.startswith("create it"):
            started = refusal(url, environment, tmp_path / "data")
            assert "UPONCE_STORAGE" in started and cure in started, started
        said = refusal_here(url, environment, tmp_path / "data", monkeypatch)
        assert "UPONCE_STORAGE" in said and cure in said, said
        assert "CLOUDINARY_URL" not in capsys.readouterr().out


def refusal_here(url: str, environment: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the preparation of `uponce serve` refuses."""
    with monkeypatch.context() as patched, pytest.raises(SettingRefused) as refused:
        for name in [each for each in os.environ if each.startswith(OURS)]:
            patched.delenv(name)
        for name, value in environment.items():
            patched.setenv(name, value)
        settings = load({"UPONCE_STORAGE": url, "UPONCE_STORAGE_SECONDS": "60"}, data=str(folder))
        with opened(settings, create=True) as backend:
            run(_prepare(backend.services, settings))
    return refused.value.message


def test_an_unusable_staging_folder_is_refused(server: SeaweedFS, url: str, tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"")
    with pytest.raises(SettingRefused, match="UPONCE_DATA"), objects(url, server.environment, tmp_path):
        pass


def test_a_missing_bucket_is_not_ready(server: SeaweedFS, tmp_path: Path) -> None:
    with objects("s3://no-such-bucket/x", server.environment, tmp_path) as store, pytest.raises(StorageUnavailable):
        run(store.ping())


# What it costs.

UPLOAD = """
import asyncio, sys, re
from pathlib import Path
from uponce.adapters.store.bucket import Bucket
from uponce.adapters.store.objects import BucketBlobs
from uponce.adapters.system import RandomIds

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

async def one(store, mebibytes):
    spooled = await store.receive()
    for _ in range(mebibytes):
        await spooled.write(bytes(1024 * 1024))
    await spooled.seal()
    await spooled.publish()
    blob = await store.open(spooled.key)
    for offset in range(0, blob.size, blob.block_bytes):
        await blob.read(offset, blob.block_bytes)
    await spooled.discard()

store = BucketBlobs(Bucket(sys.argv[1], 60), Path(sys.argv[2]), ids=RandomIds(), seconds=60, uploads=16)
store.open_store()
asyncio.run(one(store, 1))
before = peak()
asyncio.run(one(store, 300))
print(peak() - before)
store.close()
"""


@pytest.mark.proof
def test_memory_stays_flat_however_large_the_file(server: SeaweedFS, url: str, tmp_path: Path) -> None:
    """300 MB, up and down."""
    done = subprocess.run(
        [sys.executable, "-c", UPLOAD, url, str(tmp_path / "spool")],
        env=os.environ | server.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert int(done.stdout) < 32 * 1024, done.stdout


LEAVE = """
import asyncio, sys
from pathlib import Path
from uponce.adapters.store.bucket import Bucket
from uponce.adapters.store.objects import BucketBlobs
from uponce.adapters.system import RandomIds

async def leave(store):
    asking = asyncio.ensure_future(store.open("0" * 32))
    for _ in range(5000):
        if Path(sys.argv[3]).exists():
            break
        await asyncio.sleep(0.01)
    asking.cancel()

store = BucketBlobs(Bucket(sys.argv[1], 60), Path(sys.argv[2]), ids=RandomIds(), seconds=60, uploads=16)
store.open_store()
asyncio.run(leave(store))
"""


def test_a_process_may_end_while_a_request_is_under_way(server: SeaweedFS, url: str, tmp_path: Path) -> None:
    asked = tmp_path / "asked"

    def hang(method: str, path: str) -> Illness:
        asked.touch()
        return Illness.HANG

    with sick(server.endpoint) as proxy:
        proxy.rule = hang
        done = subprocess.run(
            [sys.executable, "-c", LEAVE, url, str(tmp_path / "spool"), str(asked)],
            env=os.environ | server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert proxy.seen
