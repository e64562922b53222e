"""Lines of the log: their format, and that no client can forge or flood them."""

import asyncio
import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from uponce.adapters import logs

LINE = r"2026-01-01T00:00:00\.250Z INFO box-1/\d+ "


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    """The loggers as they were before."""
    names = (None, "uponce", "uvicorn", "uvicorn.error")
    before = {name: (logging.getLogger(name).level, logging.getLogger(name).handlers[:]) for name in names}
    yield
    for name, (level, handlers) in before.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers = handlers
        logger.filters = []
    logging.captureWarnings(False)


def written(monkeypatch: pytest.MonkeyPatch, format_: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("time.time_ns", lambda: 1_767_225_600_250_000_000)
    monkeypatch.setattr("time.time", lambda: 1_767_225_600.25)
    logs.configure(level, format_, "box-1")
    return stream


def say(message: str, *words: object, name: str = "uponce", **facts: object) -> None:
    logging.getLogger(name).info(message, *words, extra={"request_id": "r" * 32, "facts": facts} if facts else None)


def test_a_line_of_text(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = written(monkeypatch, "text")
    say("stored", key="123", public_id="cats/tom", bytes=70, empty="", spaced="a b")
    say("Shutting %s", "down", name="uvicorn.error")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(LINE + 'r{32} stored key=123 public_id=cats/tom bytes=70 empty="" spaced="a b"', first)
    assert re.fullmatch(LINE + "- Shutting down", second)


def test_a_line_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = written(monkeypatch, "json")
    say("stored", key="123", bytes=70)
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        logging.getLogger("uponce").exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("instance").startswith("box-1/")
    assert first == {
        "time": "2026-01-01T00:00:00.250Z",
        "level": "info",
        "request": "r" * 32,
        "message": "stored",
        "key": "123",
        "bytes": 70,
    }
    assert (second["level"], second["request"]) == ("error", "-")
    assert second["traceback"].endswith("ValueError: one\ntwo")


@pytest.mark.parametrize("format_", ["text", "json"])
@pytest.mark.parametrize(
    "hostile",
    [
        "a\n2026-01-01T00:00:00.250Z INFO box-1/1 - stored",
        "a\r\nb",
        "a\x1b[2Jb",
        "a\x00b",
        "a\u2028b",
        "a\u202eb",
        "a\x85b",
        'a" key="456',
        "a key=456",
        "\ud800",
        "a" * 100_000,
    ],
)
def test_a_client_cannot_forge_a_line(monkeypatch: pytest.MonkeyPatch, format_: str, hostile: str) -> None:
    stream = written(monkeypatch, format_)
    say("refused", public_id=hostile, key="123")
    say("told by %s", hostile)
    text = stream.getvalue()
    lines = text.splitlines()
    assert len(lines) == text.count("\n") == 2
    assert all(line.isprintable() for line in lines)
    assert len(text) < 5000
    if format_ == "text":
        assert re.findall(r" key=(\S+)", re.sub(r'"(?:[^"\\]|\\.)*"', "", lines[0])) == ["123"]
    else:
        assert json.loads(lines[0])["key"] == "123"


def test_lines_of_a_traceback_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = written(monkeypatch, "text")
    try:
        raise ValueError("one\n2026-01-01T00:00:00.250Z INFO box-1/1 - stored\x1b")
    except ValueError:
        logging.getLogger("uponce").exception("failed")
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith(" - failed")
    assert len(rest) >= 3
    assert all(line.startswith("  | ") and line.isprintable() for line in rest)


def test_strangers_cannot_fill_the_log_through_uvicorn_or_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = written(monkeypatch, "text")
    uvicorn = logging.getLogger("uvicorn.error")
    uvicorn.warning("Invalid HTTP request received.")
    uvicorn.warning("Unsupported upgrade request.")
    uvicorn.error("ASGI callable returned without completing response.")
    logging.getLogger("botocore.auth").info("CanonicalRequest: …")
    assert stream.getvalue() == ""
    logging.getLogger("botocore.auth").warning("clock")
    uvicorn.error("no more file descriptors")
    assert [line.split(" - ")[1] for line in stream.getvalue().splitlines()] == ["clock", "no more file descriptors"]


def test_a_transfer_that_a_stop_cancels_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As uvicorn reports every exception that leaves the application."""
    stream = written(monkeypatch, "text")
    for error in (asyncio.CancelledError(), RuntimeError("a defect")):
        logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
    assert "a defect" in stream.getvalue()
    assert stream.getvalue().count("Exception in ASGI application") == 1


def test_debug_shows_what_uvicorn_says_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = written(monkeypatch, "text", "debug")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert " DEBUG " in stream.getvalue()
