"""What holds for every test: property tests draw the same examples each time, controls say how many tries they took."""

import ctypes
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

_MEMORY = Path("/dev/shm")
_ROOM = 1024**3
_ROOT = Path(__file__).parent
_SHARING = _ROOT / "tests" / "hostile"  # its campaigns use the server of their module
_LIBC = ctypes.CDLL(None)
_NAMED_LENGTH = 200
_M_MMAP_THRESHOLD, _BLOCK_BYTES = -3, 128 * 1024

# No deadline for one example and none for those that are drawn first, since machines that share a core stall. The
# campaigns explore: they set their own seeds.
settings.register_profile("uponce", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("uponce")

# A shell ignores SIGINT for what it starts in the background, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# The system gets each large block back when it is free. Otherwise glibc keeps blocks of up to 32 MiB in several heaps,
# and a process of the tests grew to 900 MB.
if hasattr(_LIBC, "mallopt"):
    _LIBC.mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)


gc.disable()  # while the tests are collected: all that is made then stays


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a long value by its length. Each process of a run tells its names: those of some tests had a million bytes."""
    if isinstance(val, str | bytes) and len(val) > _NAMED_LENGTH:
        return f"{argname} of {len(val)}"
    return None


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process of the run take a whole module, and make what its tests share once. Deal out campaigns singly.

    With thousands of groups, xdist takes longer for each test than some tests do: it counts all groups each time.
    """
    for item in items:
        is_campaign = item.get_closest_marker("proof") is not None and _SHARING not in item.path.parents
        if not is_campaign and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(_ROOT))))


def pytest_collection_finish() -> None:
    """Let no collection of garbage visit the modules and tests, which stay to the end."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a changed environment or an open file: which test of the same process would fail is chance.

    Python warns of an open file when it is garbage. What outlives the test is not visited again: later tests would take
    twice the time.
    """
    before = _environment()
    yield
    assert _environment() == before
    gc.collect()
    gc.freeze()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


@pytest.fixture
def quick_path() -> Iterator[Path]:
    """An empty folder, in memory where the system offers enough of it.

    For tests that end processes and never machines: what an fsync costs, and a media folder's 256 folders, make nine
    tenths of the time of a test whose server has no socket.
    """
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    with tempfile.TemporaryDirectory(prefix="uponce-test-", dir=_MEMORY if in_memory else None) as folder:
        yield Path(folder)


@pytest.fixture
def few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsck compares a store in 18 steps, not in 513, and a backup copies it in 17: for stores of a few blobs."""
    monkeypatch.setattr("uponce.app.fsck.PLACES", ("spool", *"0123456789abcdef", "p"))
    monkeypatch.setattr("uponce.app.copy_media.PLACES", (*"0123456789abcdef", "p"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeat the lines of the controls, which pytest keeps from those that pass."""
    lines = [
        line
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for line in report.capstdout.splitlines()
        if line.startswith("control: ")
    ]
    if lines:
        terminalreporter.section("controls")
        for line in lines:
            terminalreporter.write_line(line)
