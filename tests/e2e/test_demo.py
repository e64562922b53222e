"""`uponce demo`: it shows the truth, fails when the truth is another, and leaves nothing behind."""

import html
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from rich.console import Console

from uponce.core.account import Account
from uponce.demo import _ending_on_signals, run, sdk, tell
from uponce.demo.client import Client, Media, Reply
from uponce.demo.server import Server, ServerFailed
from uponce.demo.story import STORY, Step, StepResult, World, leave
from uponce.demo.table import FULL_WIDTH, StepBoard

WHOLE_STORY = (*STORY, leave(keep=False))


def start_demo(folder: Path, *options: str) -> subprocess.Popen[str]:
    """The command as a user starts it. The user's other settings must not matter."""
    foreign = {"CLOUDINARY_URL": "not a Cloudinary URL", "UPONCE_WINDOW": "1", "UPONCE_PORT": "none"}
    return subprocess.Popen(
        [sys.executable, "-m", "uponce", "demo", *options],
        env=os.environ | foreign | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_of(folder: Path) -> list[str]:
    """Living processes that were started with TMPDIR=folder, or name it on their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            about = command + (process / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in about:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def assert_nothing_is_left(folder: Path) -> None:
    """Neither a file nor a process. A process that was killed needs a moment to end."""
    assert list(folder.iterdir()) == []
    deadline = time.monotonic() + 60
    while left := processes_of(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_every_line_is_as_promised_and_nothing_is_left(tmp_path: Path) -> None:
    with start_demo(tmp_path) as demo:
        printed, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, printed
    assert f"{len(WHOLE_STORY)} of {len(WHOLE_STORY)} as promised" in printed
    assert "\x1b" not in printed
    assert_nothing_is_left(tmp_path)


@pytest.mark.proof
def test_the_story_of_a_relay_is_as_promised_too(tmp_path: Path) -> None:
    with start_demo(tmp_path, "--relay") as demo:
        printed, _ = demo.communicate(timeout=240)
    assert demo.returncode == 0, printed
    assert "13 of 13 as promised" in printed
    assert_nothing_is_left(tmp_path)


def test_the_recording_shows_this_story() -> None:
    """The picture of the README: every chapter and every step in their order, and no address of another site."""
    recorded = (Path(__file__).parents[2] / "docs/demo.svg").read_text()
    texts = [html.unescape(text) for text in re.findall(r"<text [^>]*>(.*?)</text>", recorded)]
    steps = [text for text in texts if text in {step.title for step in WHOLE_STORY}]
    chapters = [text for text in texts if text in {step.chapter for step in WHOLE_STORY}]
    assert steps == [step.title for step in WHOLE_STORY]
    assert chapters == list(dict.fromkeys(step.chapter for step in WHOLE_STORY))
    assert f"{len(WHOLE_STORY)} of {len(WHOLE_STORY)} as promised" in texts
    assert {urlsplit(url).hostname for url in re.findall(r"https?://[^\s\"<]+", recorded)} == {
        "www.w3.org",
        "127.0.0.1",
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_demo_that_is_interrupted_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    with start_demo(tmp_path) as demo:
        assert demo.stdout is not None
        assert any(line.startswith(" 1") for line in demo.stdout)
        assert len(processes_of(tmp_path)) > 1
        demo.send_signal(number)
        demo.communicate(timeout=240)
    assert demo.returncode == 1
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_whose_exception_is_lost_counts_at_the_end(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as ended, _ending_on_signals(), suppress(SystemExit):
        os.kill(os.getpid(), number)

    assert ended.value.code == 1


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def board(output: io.StringIO) -> StepBoard:
    return StepBoard(Console(file=output, width=FULL_WIDTH))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path) as server:
        yield server


def test_a_key_whose_signatures_work_twice_is_shown_to_break_the_promise(server: Server, board: StepBoard) -> None:
    """The mutation: post with the unlimited key, and each line about reuse must turn red."""
    server.start()
    _, unlimited = server.keys
    with Client(server.url, unlimited) as client:
        kept = tell((*STORY[:6], leave(keep=True)), World.prepare(server, client, unlimited), board)
    assert kept == [True, True, True, False, False, False, True]
    assert server.folder.exists()


def test_a_server_that_does_not_start_says_why(server: Server) -> None:
    (server.folder / "data").write_text("a file where a folder is needed")
    with pytest.raises(ServerFailed, match=r"(?s)ended with [1-9].*It printed:\n.*data"):
        server.start()


def test_without_the_sdk_it_tells_how_to_install_it(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "installed", lambda: False)
    assert run(Console(file=output, width=200)) == 1
    assert "pip install 'cloudinary>=1.46.3'" in output.getvalue()


def test_a_step_that_breaks_is_not_as_promised_and_the_story_goes_on(board: StepBoard, output: io.StringIO) -> None:
    def broken(_: World) -> StepResult:
        raise ConnectionResetError("gone")

    steps = (
        Step("One", "It breaks", "kept", broken),
        Step("Two", "It works", "kept", lambda _: StepResult(True, "fine")),
    )
    assert tell(steps, World.__new__(World), board) == [False, True]
    board.sum_up([False, True], 1.0, None)
    broke, works, verdict = (
        next(line for line in output.getvalue().splitlines() if word in line)
        for word in ("ConnectionResetError", "It works", "as promised")
    )
    assert "✗" in broke
    assert "✓" in works
    assert verdict.startswith("1 of 2 as promised")
    assert '"gone"' in output.getvalue()


class Stalling:
    """A client at the last moment of a signature, on a machine that stalls for `seconds`, `stalls` times.

    The server refuses after each stall.
    """

    def __init__(self, stalls: int, seconds: int) -> None:
        self.stalls, self.seconds, self.now, self.posts = stalls, seconds, 1_767_225_600.0, 0

    def time(self) -> float:
        return self.now

    def sign(self, public_id: str, timestamp: int) -> dict[str, str]:
        return {"public_id": public_id, "timestamp": str(timestamp)}

    def post(self, fields: dict[str, str], _: Media) -> Reply:
        self.posts += 1
        stalled = self.posts <= self.stalls
        self.now += self.seconds if stalled else 0
        return Reply(400, {"error": {"code": "stale_request"}}) if stalled else Reply(200, {"secure_url": "url"})

    def fetch(self, _: str) -> bytes:
        return b"photo"


@pytest.mark.parametrize(
    ("stalls", "seconds", "kept", "posts"), [(0, 0, True, 1), (2, 5, True, 3), (99, 5, False, 5), (1, 0, False, 1)]
)
def test_a_stall_at_the_last_moment_is_no_broken_promise(
    monkeypatch: pytest.MonkeyPatch, stalls: int, seconds: int, kept: bool, posts: int
) -> None:
    """But a refusal in time is one."""
    (step,) = (step for step in STORY if step.title == "Signature 59:57 old")
    client: Any = Stalling(stalls, seconds)
    monkeypatch.setattr("uponce.demo.story.time", client)
    photo, account = Media("photo.jpg", b"photo"), Account("1", "secret", "media", {})
    world = World(cast(Server, None), client, account, photo, photo, photo, photo)
    assert step.act(world).kept is kept
    assert client.posts == posts
    assert len(world.signed) == 2


def test_each_row_of_the_story_fits_in_one_line_of_80_columns(board: StepBoard, output: io.StringIO) -> None:
    for number, step in enumerate(WHOLE_STORY, 1):
        board.row(number, step, StepResult(True, "400 signature_revoked"), 0.999)
    rows = [line for line in output.getvalue().splitlines() if line and line[:2].strip().isdigit()]
    others = [line for line in output.getvalue().splitlines() if line.strip() and line not in rows]
    assert len(rows) == len(WHOLE_STORY)
    assert {line.strip() for line in others} == {step.chapter for step in WHOLE_STORY}
    assert all(step.title in row and step.promise in row for step, row in zip(WHOLE_STORY, rows, strict=True))
    assert max(map(len, rows)) <= FULL_WIDTH


def test_a_narrow_window_folds_and_loses_nothing(output: io.StringIO) -> None:
    step = Step("chapter", "what happens is lower case", "promised", lambda _: StepResult(True, ""))
    StepBoard(Console(file=output, width=40)).row(1, step, StepResult(False, "OTHER_BYTES_THAN_SENT"), 12.5)
    assert max(map(len, output.getvalue().splitlines())) <= 40
    assert "".join(re.findall("[A-Z_]+", output.getvalue())) == "OTHER_BYTES_THAN_SENT"


def test_the_reason_of_a_refusal_is_told_once_and_again_when_it_was_not_promised(
    board: StepBoard, output: io.StringIO
) -> None:
    for kept in (True, True, False):
        board.row(1, STORY[3], StepResult(kept, "400 signature_used", "Used at noon."), 0.0)
    assert output.getvalue().count('"Used at noon."') == 2
