"""The port of the work that a transaction leaves for later, and the values that go through it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class NewEffect:
    """Work that a transaction leaves for later: `name` is its kind, and `details` is what its handler needs to know.

    Effects of one `receiver` leave places for those of others. It is never empty.
    """

    name: str
    receiver: str
    details: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """A NewEffect that was written: `subject` is its object. Times in Unix seconds.

    Effects of one subject run one after the other. A `dead` effect waits for an operator. A claim notes its moment
    `now`, by the database's clock, and how many seconds the effect had `waited` since it was due.
    """

    id: int
    name: str
    receiver: str
    subject: str
    due_at: int
    tries: int
    created_at: int
    error: str = ""
    dead: bool = False
    now: int = 0
    waited: int = 0
    details: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many uploads are pending in an upstream, and how many effects wait for a server or for an operator."""

    pending: int
    live: int
    dead: int


class Outbox(Protocol):
    """Effects, each run at least once."""

    async def list_receivers(self, name: str, after: str, most: int) -> Sequence[str]:
        """Return receivers of due effects of this name, in order: those after the receiver `after`, then the others."""

    async def claim_effects(self, name: str, shares: Mapping[str, int], lease: int) -> Sequence[Effect]:
        """Take due effects of this name: of each receiver at most its share, oldest first, one of each subject.

        No other claim gets them for `lease` seconds. Each claim counts as a try.
        """

    async def finish_effect(self, effect_id: int) -> None: ...

    async def postpone_effect(self, effect: Effect, seconds: int, error: str = "", *, dead: bool = False) -> None:
        """Run a claimed effect again after so many seconds. If it is `dead`, run it only when an operator asks for it.

        Do nothing if the effect was made due during its run, or was claimed again.
        """

    async def hasten_effect(self, subject: str) -> None:
        """Make the effects of a subject due now."""

    async def find_effect(self, effect_id: int) -> Effect | None: ...

    async def list_effects(self, limit: int) -> Sequence[Effect]:
        """Return the effects, dead ones first, then in the order of their time."""

    async def count_waiting(self) -> Waiting: ...

    async def retry_effects(self, effect_id: int | None = None) -> int:
        """Make one effect, or all dead ones, due now and alive. Return their number.

        For all, this takes many transactions. Other writes go on between them.
        """

    async def drop_dead_effects(self, name: str, effect_id: int | None = None) -> int:
        """Delete the dead effects of this name, or one of them. Return their number.

        Transactions as for `retry_effects`. Never drop look-ups of a relay: each holds a pending signature.
        """
