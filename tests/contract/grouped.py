"""A database whose commits go the way of small uploads: through steps, together with all that wait."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from uponce.app.ports import Candidate, Committed, Draft, Records, Refusal
from uponce.core.errors import UponceError
from uponce.core.refusals import refusal_of
from uponce.core.values import Caller, Grant

MOST_REFUSALS = 7  # not the default


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """An upload that is ready to be committed before its steps. `seen` is called with what its steps may read."""

    grant: Grant
    draft: Draft
    caller: Caller
    seen: Callable[[Records], UponceError | None] = lambda _: None


def ready(arrivals: Sequence[Sent], records: Records) -> Sequence[Candidate | Refusal | UponceError]:
    """The steps: only what is known to be spent and is no repeat is refused, or what `seen` refuses."""
    return [_outcome(each, records) for each in arrivals]


def _outcome(sent: Sent, records: Records) -> Candidate | Refusal | UponceError:
    error = sent.seen(records)
    if error is not None:
        return error
    record = records.find_grant(sent.grant.key)
    may_repeat = sent.draft.idempotency_key is not None
    refusal = None if may_repeat or record is None else refusal_of(record, sent.grant.max_uses)
    return Refusal(sent.grant, sent.caller, refusal) if refusal else Candidate(sent.grant, sent.draft, sent.caller)


class Grouped:
    """The database, except that `commit` is `commit_arrival`."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def commit(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        committed: Committed = await self._database.commit_arrival(Sent(grant, draft, caller), ready, MOST_REFUSALS)
        return committed
