"""`uponce demo`: shows on a real server that a signature works once."""

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from uponce.demo import sdk
from uponce.demo.client import Client
from uponce.demo.server import Server, ServerFailed
from uponce.demo.story import STORY, Step, StepResult, World, leave, relay_story, setting_of
from uponce.demo.table import StepBoard


def run(console: Console, keep: bool = False, *, relay: bool = False) -> int:
    """Run the demo on a new server. Return 0 if every promise holds, else 1.

    With `relay` that server passes uploads on to a second one. No process stays, and no file unless `keep`: also after
    a failure, an interruption or a SIGTERM.
    """
    board = StepBoard(console)
    if not sdk.installed():
        board.fail(sdk.HOW_TO_INSTALL)
        return 1
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="uponce-demo-"))
    try:
        with _ending_on_signals():
            kept = _show_relay(board, folder, keep) if relay else _show(board, folder, keep)
    except ServerFailed as error:
        board.fail(str(error))
        return 1
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    board.sum_up(kept, time.monotonic() - began, folder if keep else None)
    return 0 if all(kept) else 1


def tell(story: Sequence[Step], world: World, board: StepBoard) -> list[bool]:
    """Run the steps in order. Return for each whether its promise holds. An exception counts as a broken promise."""
    kept = []
    for number, step in enumerate(story, 1):
        began = time.monotonic()
        with board.busy(f"{number}  {step.title}"):
            outcome = _act(step, world)
        board.row(number, step, outcome, time.monotonic() - began)
        kept.append(outcome.kept)
    return kept


def _act(step: Step, world: World) -> StepResult:
    try:
        return step.act(world)
    except Exception as error:
        return StepResult(False, type(error).__name__, str(error))


def _show(board: StepBoard, folder: Path, keep: bool) -> list[bool]:
    with Server(folder) as server:
        return _told(board, server, (*STORY, leave(keep)))


def _show_relay(board: StepBoard, folder: Path, keep: bool) -> list[bool]:
    places = folder / "account", folder / "relay"
    for place in places:
        place.mkdir()
    with Server(places[0]) as account:
        with board.busy("Starting the server that plays the account"):
            account.start()
        with Server(places[1], setting_of(account)) as server:
            return _told(board, server, (*relay_story(account), leave(keep)))


def _told(board: StepBoard, server: Server, story: Sequence[Step]) -> list[bool]:
    with board.busy("Starting a server in an empty folder, making a JPEG, a GIF and an MP4"):
        server.start()
        browser_key, server_key = server.keys
        client = Client(server.url, browser_key)
        world = World.prepare(server, client, server_key)
    board.open(server.url, sdk.version())
    with client:
        return tell(story, world, board)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Raise SystemExit on SIGTERM and SIGHUP, to clean up as on Ctrl-C. The server's session does not get the signals.

    Python drops an exception inside a finalizer, so a signal that arrives there counts at the end.
    """
    received: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise SystemExit(1)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise SystemExit(1)
