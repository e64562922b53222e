"""The request that the running task works for. A task that it begins works for it too."""

from contextvars import ContextVar

# Every line of the log has it.
request_id: ContextVar[str] = ContextVar("request_id", default="-")
