"""The folder in which workers count together: room for every metric, and no worker stopped where there is no room."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import pytest

from proof.faults.small_disk import can_mount, mounted
from tests.scrape import Scraped
from uponce.adapters import metrics as module
from uponce.adapters.metrics import SIZES, VARIABLE, PrometheusMetrics, shared_folder, take_place
from uponce.app.services import Services
from uponce.config import load
from uponce.core import errors
from uponce.core.errors import StorageUnavailable, UponceError
from uponce.web.errors import STATUS, TUS_STATUS
from uponce.web.operators import Scrape
from uponce.web.pages.playground import Playground
from uponce.web.routes import create_app
from uponce.wiring import build_metrics, metrics_of_workers

OLD = time.time() - 3600
SUCCESSES = (0, 200, 201, 204, 206, 302, 304, 307, 405, 500)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(module, "PLACES", (str(tmp_path),))
    with shared_folder():
        yield Path(os.environ[VARIABLE])


def test_all_that_can_be_told_fits_into_the_files(folder: Path) -> None:
    """Every route with every method and status, every outcome: no file grows, for which there may be no room."""
    services = Services(*[None] * 7)  # type: ignore[arg-type]
    playground = Playground(local=False, max_bytes=1, keep_seconds=1)
    app = create_app(services, lambda _: nullcontext(), None, Scrape("token", bytes), playground=playground)
    routes = {"unmatched", *(path for route in app.routes for path in route.paths)}
    methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
    metrics = PrometheusMetrics("10.20.30", "server" * 40, take_place())
    for status in {*SUCCESSES, *STATUS.values(), *TUS_STATUS.values()}:
        for route in routes:
            for method in methods:
                metrics.answered(route, method, status, 0.1)
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, UponceError) and "code" in vars(error):
            metrics.refused(error.code)
    assert len(routes) > 40
    assert {path.name: path.stat().st_size for path in folder.glob("*.db")} == {
        f"{kind}_0.db": size for kind, size in SIZES.items()
    }


COUNT = """
import sys
from uponce.adapters import metrics as module
from uponce.adapters.metrics import PrometheusMetrics
if sys.argv[1] == "library":
    module._reserve = lambda file, size: None
metrics = PrometheusMetrics("1", "s", module.take_place())
print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    metrics.answered(f"/{number}", "GET", 200, 0.1)
"""


@pytest.mark.parametrize("who", ["uponce", "library"])
def test_a_place_that_fills_up_stops_nobody(tmp_path: Path, who: str) -> None:
    """The library alone makes files with holes. That is the control: SIGBUS."""
    if not can_mount(tmp_path / "probe"):
        pytest.skip("ABSENT: no tmpfs can be mounted")
    with mounted(tmp_path / "small", "size=5m") as small:
        command = [sys.executable, "-c", COUNT, who]
        told = {**os.environ, VARIABLE: str(small)}
        with subprocess.Popen(command, env=told, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as counting:
            assert counting.stdin is not None and counting.stdout is not None
            assert counting.stdout.readline() == "ready\n"
            with pytest.raises(OSError, match="No space left"), (small / "ballast").open("wb", buffering=0) as ballast:
                while True:
                    ballast.write(bytes(4096))
            counting.stdin.write("\n")
            counting.stdin.close()
            assert (counting.wait(60) == 0) is (who == "uponce")


def test_where_there_is_no_room_a_worker_has_no_metrics(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load({"UPONCE_METRICS_TOKEN": "token", "UPONCE_WORKERS": "2"})
    assert build_metrics(settings) is not None
    monkeypatch.setattr(module, "PLACES", (str(folder / "nowhere"),))
    with metrics_of_workers(settings):
        assert build_metrics(settings) is None
        assert "no folder for them could be made" in caplog.text
    with mock.patch.dict(os.environ, {VARIABLE: str(folder / "gone")}):
        assert build_metrics(settings) is None


def test_one_process_needs_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES", ())
    metrics = build_metrics(load({"UPONCE_METRICS_TOKEN": "token", "UPONCE_INSTANCE": "one"}))
    assert metrics is not None
    metrics.stored()
    scraped = Scraped(metrics.text().decode())
    assert scraped.value("uponce_build_info", server="one") == 1
    assert scraped.outcomes() == {"ok": 1}
    assert build_metrics(load({})) is None


NO_TEMPORARY_FOLDER = """
import tempfile
tempfile._candidate_tempdir_list = lambda: ["/proc/nowhere"]
from uponce.config import load
from uponce.wiring import build_metrics, metrics_of_workers
for workers in ("1", "2"):
    settings = load({"UPONCE_METRICS_TOKEN": "token", "UPONCE_WORKERS": workers})
    with metrics_of_workers(settings):
        print(build_metrics(settings) is not None)
"""


def test_a_server_starts_without_a_folder_for_temporary_files() -> None:
    """As on a full disk, or with a root that is read-only. One process needs no such folder."""
    command = [sys.executable, "-c", NO_TEMPORARY_FOLDER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout.splitlines()[:1]) == (0, ["True"]), done.stderr


def test_a_folder_of_another_program_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is the library's, and may have been meant for the program that started us."""
    with mock.patch.dict(os.environ, {VARIABLE: "/other"}), shared_folder():
        assert os.environ[VARIABLE] != "/other"
    monkeypatch.setattr(module, "PLACES", ())
    with mock.patch.dict(os.environ, {VARIABLE: "/other"}), shared_folder():
        assert VARIABLE not in os.environ


def test_the_folder_is_ours_alone_and_goes_with_the_server(folder: Path) -> None:
    with shared_folder():
        made = Path(os.environ[VARIABLE])
        assert made.parent == folder.parent and made.stat().st_mode & 0o777 == 0o700
        take_place().lock.close()
    assert not made.exists()


def test_folders_of_killed_servers_go_at_the_next_start(folder: Path) -> None:
    """Not that of one that lives, nor one that is so young that its server may just be starting."""
    abandoned, young = (folder.parent / f"uponce-metrics-{name}" for name in ("abandoned", "young"))
    for path in (abandoned, young):
        path.mkdir()
    (abandoned / "counter_0.db").write_bytes(b"numbers")
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (folder.parent / "uponce-metrics-link").symlink_to(elsewhere)
    for path in (abandoned, elsewhere, folder):
        os.utime(path, (OLD, OLD))
    with shared_folder():
        assert not abandoned.exists()
        assert folder.exists() and young.exists() and elsewhere.exists()


def test_a_dead_workers_place_is_taken_over_with_its_counters(folder: Path) -> None:
    """But not with the uploads that were under way there."""
    first = take_place()
    second = take_place()
    assert (first.number, second.number) == (0, 1)
    second.lock.close()
    metrics = PrometheusMetrics("1", "s", first)
    metrics.stored()
    metrics.sending().__enter__()
    metrics.sweep_succeeded(1000.0)
    assert Scraped(metrics.text().decode()).value("uponce_uploads_in_progress") == 1
    first.lock.close()  # what the kernel does when a process dies
    next_one = take_place()
    assert next_one.number == 0
    metrics = PrometheusMetrics("1", "s", next_one)
    metrics.stored()
    scraped = Scraped(metrics.text().decode())
    assert scraped.outcomes() == {"ok": 2}
    assert scraped.value("uponce_uploads_in_progress") == 0
    assert scraped.value("uponce_sweep_last_success_timestamp_seconds") == 1000


def test_the_uploads_of_a_killed_worker_go_although_another_place_is_free(folder: Path) -> None:
    """As after SIGHUP: each new worker takes a place before the old worker frees its own."""
    places = [take_place() for _ in range(3)]
    metrics = PrometheusMetrics("1", "s", places[2])
    metrics.stored()
    metrics.sending().__enter__()
    assert Scraped(metrics.text().decode()).value("uponce_uploads_in_progress") == 1
    for freed in places[1:]:
        freed.lock.close()
    next_one = take_place()
    assert next_one.number == 1
    scraped = Scraped(PrometheusMetrics("1", "s", next_one).text().decode())
    assert scraped.value("uponce_uploads_in_progress") == 0
    assert scraped.outcomes() == {"ok": 1}
    places[0].lock.close()


def test_a_folder_that_is_gone_is_told_as_such(folder: Path) -> None:
    metrics = PrometheusMetrics("1", "s", take_place())
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    metrics.stored()
    with pytest.raises(StorageUnavailable):
        metrics.text()
