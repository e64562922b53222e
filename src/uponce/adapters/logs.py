"""The log: one format for the lines of uponce, of uvicorn and of libraries, on standard error.

Text is `TIME LEVEL INSTANCE/PID REQUEST MESSAGE name=value …`. JSON has the same facts, one object a line. REQUEST is
the request's id, or `-`. Clients cannot forge a line: characters that are not printable are escaped, and long values
are cut.
"""

import asyncio
import json
import logging
import os
import re
from datetime import UTC, datetime
from typing import Any

from uponce.app import current

_MAX_VALUE = 200
_MAX_MESSAGE = 2000
# Lines of uvicorn about single requests. Strangers could fill the log with them, and uponce logs most of them too.
_OF_CLIENTS = (
    "Invalid HTTP request received",
    "Unsupported upgrade request",
    "No supported WebSocket library",
    "ASGI callable returned without",
)


def configure(level: str, format_: str, instance: str) -> None:
    """Send all log records of this process to standard error. `level` is for uponce and uvicorn.

    Libraries stay at `warning`, since some of them log credentials at `debug`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter({"text": TextLines, "json": JsonLines}[format_](f"{instance}/{os.getpid()}"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in ("uponce", "uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger("uvicorn.error").addFilter(_quieten)


def _quieten(record: logging.LogRecord) -> bool:
    """Lower uvicorn's lines about single requests to `debug`.

    A stop that cancels transfers is no failure of the program: uvicorn says in one line how many it cancelled.
    """
    is_cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    if not is_cancelled and not record.getMessage().startswith(_OF_CLIENTS):
        return True
    record.levelno, record.levelname = logging.DEBUG, "DEBUG"
    return logging.getLogger("uvicorn.error").isEnabledFor(logging.DEBUG)


class TextLines(logging.Formatter):
    """Formats a record as a line for people. A traceback follows on separate lines, each marked with `|`."""

    def __init__(self, instance: str) -> None:
        super().__init__()
        self._instance = _value(instance)

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={_value(value)}" for name, value in _facts(record).items())
        message = _printable(record.getMessage())
        head = f"{_time(record)} {record.levelname} {self._instance} {_request(record)} {message}{facts}"
        lines = [_printable(line) for line in self._traceback(record).splitlines()]
        return "\n  | ".join([head, *lines])

    def _traceback(self, record: logging.LogRecord) -> str:
        return self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""


class JsonLines(TextLines):
    """Formats a record as a JSON object on one line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "instance": self._instance,
            "request": _request(record),
            "message": record.getMessage()[:_MAX_MESSAGE],
            **{name: _cut(value) for name, value in _facts(record).items()},
        }
        if traceback := self._traceback(record):
            line["traceback"] = traceback
        return json.dumps(line)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _request(record: logging.LogRecord) -> str:
    return str(getattr(record, "request_id", None) or current.request_id.get())


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts: dict[str, Any] = getattr(record, "facts", {})
    return facts


def _cut(value: Any) -> Any:
    return f"{value[:_MAX_VALUE]}…" if isinstance(value, str) and len(value) > _MAX_VALUE else value


def _value(value: Any) -> str:
    """Return the value unchanged if it is one plain word, else as a JSON string in ASCII."""
    text = str(_cut(value))
    return text if re.fullmatch(r"[!#-<>-~]+", text) else json.dumps(text)


def _printable(text: str) -> str:
    """Return the text on one line, with characters escaped that are not printable or reverse the direction."""
    cut = text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
