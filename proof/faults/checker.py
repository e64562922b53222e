"""The history checker: whether the answers to clients could exist if each call took effect in one moment.

A signature turns once, at one moment, from unused to used or to revoked. So there must be an operation that turned it,
and a moment between its call and its return. Everything that saw it unused was called no later, and everything that saw
it turned returned no earlier. Operations whose answer was lost may have turned it or not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

OK, USED, REVOKED, UNUSED, IN_USE, UNKNOWN = "ok", "used", "revoked", "unused", "in_use", "unknown"


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client did: `kind` is upload, revoke or status. An unknown result has no end: it may still happen."""

    kind: str
    result: str
    called: float
    returned: float
    client: int = 0
    grant: int = 0


def anomaly(history: Sequence[Operation]) -> str:
    """Why the operations of one signature cannot have happened, or nothing."""
    winners = [operation for operation in history if operation.result == OK]
    if len(winners) > 1:
        return f"{len(winners)} uploads were accepted: {winners}"
    seen = {USED if op.result == OK else op.result for op in history if op.result in (OK, USED, REVOKED)}
    if len(seen) > 1:
        return "it was seen used, and it was seen revoked"
    if not seen:
        return ""
    state = seen.pop()
    candidates = winners or [op for op in history if _may_turn(op, state)]
    if any(_is_possible(history, turning) for turning in candidates):
        return ""
    return f"no operation of {candidates} can be what made it {state}"


def anomalies(history: Iterable[Operation]) -> list[str]:
    """Return the anomalies of many signatures. Each signature is judged alone."""
    by_grant: dict[int, list[Operation]] = {}
    for operation in history:
        by_grant.setdefault(operation.grant, []).append(operation)
    return [f"signature {grant}: {why}" for grant, operations in by_grant.items() if (why := anomaly(operations))]


def _may_turn(operation: Operation, state: str) -> bool:
    """Return whether the operation may have turned the signature to this state.

    A lost upload may have used it. Only a revocation that said so, or whose answer was lost, may have revoked it.
    """
    if state == USED:
        return operation.kind == "upload" and operation.result == UNKNOWN
    return operation.kind == "revoke" and operation.result in (REVOKED, UNKNOWN)


def _is_possible(history: Sequence[Operation], turning: Operation) -> bool:
    earliest = max([turning.called, *(op.called for op in history if op.result == UNUSED)])
    latest = min([_end(turning), *(op.returned for op in history if op.result in (OK, USED, REVOKED))])
    return earliest <= latest


def _end(operation: Operation) -> float:
    return inf if operation.result == UNKNOWN else operation.returned
