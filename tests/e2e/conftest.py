"""One server for each module of client tests, real media to send to it, and the programs that do."""

import fcntl
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import samples
from tests.e2e.commands import printed, uponce
from tests.e2e.lossy import LossyProxy
from tests.server import Server
from uponce.cli import upload

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NODE = Path(__file__).parent / "node"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "data") as server:
        yield server


@pytest.fixture
def lossy(server: Server) -> Iterator[LossyProxy]:
    with LossyProxy(server) as proxy:
        serving = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        serving.start()
        yield proxy
        proxy.shutdown()
        serving.join()


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cat.jpg, dance.gif, walk.mp4, song.mp3 and note.txt."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "cat.jpg").write_bytes(samples.jpeg(1))
    (folder / "dance.gif").write_bytes(samples.gif(2))
    (folder / "walk.mp4").write_bytes(samples.mp4(3))
    (folder / "song.mp3").write_bytes(samples.mp3(4))
    (folder / "note.txt").write_text("Once.\n")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder without a server."""
    folder = tmp_path / "data"
    printed(uponce("keys", "create", "--data", folder))
    return folder


@pytest.fixture
def tries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """`uponce upload` waits no seconds before it asks a server again."""
    monkeypatch.setattr(upload, "_RETRIES", upload._RETRIES.new(backoff_factor=0))


@pytest.fixture(scope="session")
def curl() -> str:
    return needed("curl")


@pytest.fixture(scope="session")
def chromium() -> str:
    return needed("chromium")


@pytest.fixture(scope="module")
def browser(chromium: str) -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    from tests.e2e.test_browser import FLAGS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("playground") / "data", env={"UPONCE_PLAYGROUND": "local"}) as server:
        yield server


@pytest.fixture(scope="session")
def node() -> str:
    """Node, with the locked packages installed."""
    program = needed("node")
    install_packages(NODE)
    return program


def install_packages(folder: Path) -> None:
    """Do `npm ci` in the folder: once for each lock file, however many tests run at a time."""
    npm = needed("npm")
    installed = folder / "node_modules" / ".installed"
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked = lock.read()
        if not installed.exists() or installed.read_text() != locked:
            subprocess.run([npm, "ci"], cwd=folder, check=True, timeout=300)
            installed.write_text(locked)


def needed(program: str) -> str:
    """Its path. Where it is not installed, the tests that need it cannot tell anything."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"ABSENT: {program} is not installed")
    return path
