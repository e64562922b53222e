"""Work of the event loop in a thread, where the system allows no more threads."""

import asyncio
import threading

import pytest

from uponce.app.threads import in_a_thread
from uponce.core.errors import ServerBusy


def test_work_that_no_thread_took_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop keeps its job, and the next thread takes that one too."""
    ran: list[str] = []

    def no_more(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def play() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", no_more)
            with pytest.raises(ServerBusy):
                in_a_thread(lambda: ran.append("refused"))
        await in_a_thread(lambda: ran.append("next"))

    asyncio.run(play())
    assert ran == ["next"]
