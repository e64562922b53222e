"""Which PostgreSQL a connection belongs to, and what happens when another one takes over.

A connection belongs to one cluster, and in it to one timeline: its **history**. A standby that was promoted and a
recovery to a point in time begin a new timeline; a dump that was restored is in another cluster. Each of them may lack
the last uses of signatures. So the ledger stores in which history it was last used. Two standbys of one primary begin
timelines with the same number, and a former primary that comes back still has its own. So the name of a history in the
ledger ends with a random text, and with those of the histories before it, see core/lineage.py.

A process that uses one history accepts only those that follow it. A former primary lacks the rows of the present one:
through it, a sweep would delete the files that these rows name. A process that starts later cannot know that. So the
database also gets a new owner, and the storage then belongs to no former primary.
"""

import logging
import threading
from contextlib import suppress
from secrets import token_hex

import psycopg

from uponce.adapters.database import upkeep
from uponce.adapters.database.postgres.pool import write
from uponce.adapters.database.postgres.session import Session
from uponce.adapters.database.steps import Rows, Rules, Steps, operation
from uponce.core.errors import SettingRefused
from uponce.core.lineage import follows, heir
from uponce.core.signature import utc

log = logging.getLogger("uponce")

_NOT_TOLD = (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction, psycopg.errors.FeatureNotSupported)


class Histories:
    """What one process knows about the histories of its connections. It is safe for threads.

    After another PostgreSQL has taken over, a fence with `fence_skew` comes before all other work. None trusts that the
    new one lacks no use.
    """

    def __init__(self, fence_skew: int | None) -> None:
        self._fence_skew = fence_skew
        self._present: str | None = None
        self._noting = threading.Lock()

    def admit(self, session: Session) -> None:
        """Check a new connection, and fence if its history is new.

        Promoting or restoring a server ends the connections to it. Raise SettingRefused if another
        one has replaced the PostgreSQL of the connection.
        """
        seen = None
        with suppress(*_NOT_TOLD):  # the role may not read it, or the engine only speaks PostgreSQL's protocol
            ((row,), recorded) = session.ask([("seen_history", {}), ("recorded_history", {})])
            seen, name = str(row["name"]), _name_of(recorded)
        if seen is None:
            return
        try:
            self._note(name)
        except SettingRefused:
            (recorded,) = session.ask([("recorded_history", {})])  # another thread may have entered the next history
            name = _name_of(recorded)
            self._note(name)
        if name is None or not _is_of(name, seen):
            until, name = write(session, _enter_history(seen, self._fence_skew))
            if until is not None:
                log.warning("another PostgreSQL has taken over: signatures of %s and before are refused", utc(until))
        session.history = self._note(name)

    def is_left(self, session: Session) -> bool:
        """Return whether another PostgreSQL has replaced the one of this session."""
        return session.history not in (None, self._present)

    def _note(self, name: str | None) -> str | None:
        """Note that the ledger was last used in this history, unless that is not known. Return the texts of the name.

        Raise SettingRefused if they do not follow the present ones.
        """
        if name is None:
            return None
        texts = name.rpartition("/")[2]
        with self._noting:
            if self._present is not None and not follows(texts, self._present):
                raise SettingRefused(
                    "Another PostgreSQL has replaced the one that answers, which therefore lacks uploads. Stop the "
                    "one that answers, then rewind it (pg_rewind) or wipe it. To give up the uploads that it lacks, "
                    "stop all servers, run `uponce fence`, and start them."
                )
            self._present = texts
        return texts


@operation(rules=Rules.OWN, patient=True)
def _enter_history(now: float, seen: str, fence_skew: int | None) -> Steps[tuple[int | None, str | None]]:
    """Fence if another history is recorded, and record this one. Return the last refused timestamp, or None, and the
    name.

    Another server may have done it first. A frozen database accepts no uses, and is fenced when it thaws.
    """
    ((frozen,), recorded) = yield [("is_frozen", {}), ("recorded_history", {})]
    name, until = _name_of(recorded), None
    if frozen["frozen"]:
        return None, None
    if name is None:
        texts = token_hex(8)
    elif _is_of(name, seen):
        return None, name
    else:
        texts = heir(token_hex(8), name.rpartition("/")[2])
        if fence_skew is not None:
            until = yield from upkeep.fence.steps(now, fence_skew)
        yield from upkeep.steps_of_succession(now)
    name = f"{seen}/{texts}"
    yield [("forget_history", {}), ("record_history", {"name": name})]
    return until, name


def _name_of(recorded: Rows) -> str | None:
    return str(recorded[0]["name"]) if recorded else None


def _is_of(name: str, seen: str) -> bool:
    """Return whether the ledger was last used in the history that a connection sees."""
    return name.rpartition("/")[0] == seen
