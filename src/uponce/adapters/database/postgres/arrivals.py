"""Uploads that have arrived in memory: a group takes its steps in a thread, then each waits for the next commit."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from uponce.adapters.database.postgres.commits import MAX_BATCH
from uponce.adapters.database.postgres.failures import unavailable
from uponce.adapters.threads import Threads, ThreadsEnded
from uponce.app.ports import Candidate, Committed, Refusal, Steps
from uponce.core.errors import DatabaseUnavailable, GrantRefused, UponceError
from uponce.core.values import ApiKey, Caller, Grant, GrantRecord

log = logging.getLogger("uponce")

Made = Candidate | Refusal | UponceError


class Source(Protocol):
    """What the steps and what follows them need of the database."""

    async def find_key(self, api_key: str) -> ApiKey | None: ...

    async def list_keys(self, cloud: str | None = None) -> Sequence[ApiKey]: ...

    async def record_refusal(self, grant: Grant, code: str, caller: Caller, most: int = 20) -> None: ...


@dataclass(frozen=True, slots=True)
class PostgresRecords:
    """The Records port, of what was read for this group beforehand. It knows no grant: the commit decides."""

    keys: Mapping[str, ApiKey | None]
    of_clouds: Mapping[str, Sequence[ApiKey]]

    def find_key(self, api_key: str) -> ApiKey | None:
        return self.keys.get(api_key)

    def list_keys(self, cloud: str) -> Sequence[ApiKey]:
        return self.of_clouds.get(cloud, ())

    def find_grant(self, key: bytes) -> GrantRecord | None:
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    arrival: Any
    steps: Steps[Any]
    future: "asyncio.Future[Made]"


@dataclass(slots=True)
class Arrivals:
    """While one group takes its steps, the next one gathers. One thread takes all steps."""

    source: Source
    commit: Callable[[Grant, Any, Caller], Awaitable[Committed]]
    _threads: Threads = field(default_factory=lambda: Threads(1, "uponce-steps"))
    _queue: deque[_Waiting] = field(default_factory=deque)
    _running: asyncio.Task[None] | None = None

    def close(self) -> None:
        self._threads.close()

    async def run(self, arrival: Any, steps: Steps[Any], most_refusals: int) -> Committed:
        """As Database.commit_arrival."""
        made = await self._made(arrival, steps)
        if isinstance(made, UponceError):
            raise made
        if isinstance(made, Refusal):
            return await self._refuse(made, most_refusals)
        try:
            return await self.commit(made.grant, made.draft, made.caller)
        except GrantRefused as error:
            return await self._refuse(Refusal(made.grant, made.caller, error), most_refusals)

    async def _refuse(self, refusal: Refusal, most: int) -> Committed:
        await self.source.record_refusal(refusal.grant, refusal.error.code, refusal.caller, most)
        raise refusal.error

    async def _made(self, arrival: Any, steps: Steps[Any]) -> Made:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(arrival, steps, loop.create_future())
        self._queue.append(waiting)
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._serve())
        return await waiting.future

    async def _serve(self) -> None:
        while self._queue:
            steps, group = self._queue[0].steps, list[_Waiting]()
            while self._queue and len(group) < MAX_BATCH and self._queue[0].steps == steps:
                group.append(self._queue.popleft())
            for waiting, made in zip(group, await self._take_steps(group, steps), strict=True):
                if not waiting.future.done():  # else the caller was cancelled
                    waiting.future.set_result(made)

    async def _take_steps(self, group: Sequence[_Waiting], steps: Steps[Any]) -> Sequence[Made]:
        arrivals = [waiting.arrival for waiting in group]
        try:
            keys = {name: await self.source.find_key(name) for name in {arrival.api_key for arrival in arrivals}}
            strange = {arrival.cloud for arrival in arrivals if _is_strange(keys[arrival.api_key], arrival.cloud)}
            records = PostgresRecords(keys, {cloud: await self.source.list_keys(cloud) for cloud in strange})
            return await self._threads.run(lambda: steps(arrivals, records))
        except ThreadsEnded:
            error: UponceError = DatabaseUnavailable("The server is shutting down. Send the same request again.")
        except UponceError as failure:
            error = failure
        except Exception as failure:  # without an answer, the callers of this group would wait for ever
            log.exception("the steps of a group of uploads failed")
            error = unavailable(failure)
        return [error] * len(group)


def _is_strange(key: ApiKey | None, cloud: str) -> bool:
    return key is None or key.cloud != cloud or key.revoked_at is not None
