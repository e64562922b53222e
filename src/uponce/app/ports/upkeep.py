"""The port of what keeps a database in order, and the values that go through it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Rule(StrEnum):
    """What must hold inside the database. The SQL statements `broken_…` find the rows that break a rule."""

    ADDRESSABLE = "addressable"  # an asset's blob key is 32 lower-case hex digits
    NOT_CONDEMNED = "not_condemned"  # no asset names a condemned blob
    WITHIN_USES = "within_uses"  # a grant has no more uses than it allows
    DATED = "dated"  # a grant has a time of spending exactly when it was spent
    PENDING = "pending"  # each pending use of a grant belongs to an upload that was passed on
    AUDITED = "audited"  # each use of a grant that is not pending has its audit row, unless a purge may have deleted it
    PURGED = "purged"  # a grant whose time was over an hour ago is forgotten
    AFTER_WATERMARK = "after_watermark"  # a grant's timestamp is after its key's watermark


@dataclass(frozen=True, slots=True)
class Fault:
    """What an engine reports about its files. Without damage, `message` also says what the operator can do."""

    message: str
    is_damage: bool = True


class Upkeep(Protocol):
    """What keeps a database in order."""

    async def purge(self, audit_seconds: int | None, dead_seconds: int | None = None) -> int:
        """Forget grants whose time is over, by the database's clock. Return their number.

        It works for some minutes at most on each kind of rows. If more are left, the next purge goes on.
        In the same transaction, the watermark of their key rises to the newest dropped timestamp. Audit rows older than
        `audit_seconds` are deleted too, and effects that have been dead for `dead_seconds`. With None, these rows stay.
        At most six hours of each are deleted at once: the clock may be far ahead for a moment.
        Look-ups of a relay stay in any case. Effects that a clock far ahead has written or delayed are due at once.
        """

    async def ping(self) -> None:
        """Return if the database can be read and written. Raise if not."""


class Fence(Protocol):
    """Refuses earlier signatures, or every write."""

    async def fence(self, skew: int) -> int:
        """Refuse from now on every signature that servers may have accepted. Return the last timestamp that is refused.

        In one transaction the watermark of every key rises to the database's time plus `skew` seconds, or the skew of
        `noted_settings` if it is greater; a higher one stays. Uploads that are under way are refused at their commit,
        and series end. Pending uploads continue. The fence counts also for keys that come back later, see `add_key`.
        """

    async def widen_fence(self, skew: int) -> int | None:
        """Raise the watermarks of the last fence, if its skew was less. A server calls it at each start.

        Return the last timestamp that is refused now, or None if the fence stays as it is.
        A copy may have noted an older skew, and the command may run in a shell without the server's settings. Keys that
        were new after the fence stay as they are.
        """

    async def freeze(self) -> None:
        """Let every write fail with DatabaseUnavailable from now on, on every server. Reads go on. May be repeated.

        If a copy is used elsewhere, neither database would know the uses in the other one.
        """

    async def frozen(self) -> bool: ...

    async def thaw(self, skew: int) -> int:
        """Accept writes, and `fence`, in one transaction. Return as `fence`. Another copy may have used signatures."""


class Checks(Protocol):
    """Looks for what must not be in a database."""

    async def integrity(self, *, deep: bool) -> Sequence[Fault]:
        """Return the faults in the engine's files, in its words. `deep` also compares indexes with rows."""

    async def violations(self, rule: Rule, audit_seconds: int, most: int) -> Sequence[str]:
        """Return grants (hex) or assets that break a rule now, at most `most` of them.

        Audit rows count as kept for `audit_seconds`, but not from before the oldest one.
        """

    async def count_violations(self, rule: Rule, audit_seconds: int) -> int:
        """Return how many grants or assets break a rule now."""


class Deployment(Protocol):
    """What a database knows of the storage beside it, and of its servers."""

    async def owner(self) -> str | None:
        """Return the random name that the storage of this database has too. Return None before `make_owner`."""

    async def make_owner(self) -> str:
        """Return the owner. The first call makes it, also in a frozen database."""

    async def follow_owner(self, owner: str) -> str:
        """Return a new owner of the database that follows this one, see core/lineage.py.

        Return the present owner if it is another one that follows.
        """

    async def note_settings(self, settings: Mapping[str, str]) -> None:
        """Keep some settings of the server that starts, also in a frozen database. A server calls it at each start.

        Commands may run in a shell without the server's settings. Names are lower-case, without a prefix.
        """

    async def noted_settings(self) -> Mapping[str, str]:
        """Return what `note_settings` kept last: nothing before. A server of another release may note other names."""
