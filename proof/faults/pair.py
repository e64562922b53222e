"""Two PostgreSQL servers, of which one follows the other and takes its place."""

import os
import signal
import time
from urllib.parse import quote

from tests.postgres import Postgres

_SECONDS = 60


class Pair:
    """A synchronous standby has what the primary acknowledges; an asynchronous one may lack the end of it."""

    def __init__(self, *, is_synchronous: bool) -> None:
        self._is_synchronous = is_synchronous
        self.primary = Postgres()
        self.primary.start()
        self._both = [self.primary, Postgres(self.primary)]
        self._follow()

    @property
    def standby(self) -> Postgres:
        (standby,) = (one for one in self._both if one is not self.primary)
        return standby

    def stop(self) -> None:
        for one in self._both:
            one.stop()

    def fresh_schema(self) -> str:
        """Return the URL of a new, empty data set on the one of the two that is the primary."""
        hosts = ",".join(quote(str(one.folder)) for one in self._both)
        return self.primary.fresh_schema().replace(quote(str(self.primary.folder)), hosts)

    def catch_up(self) -> None:
        """Return when the standby has on its disk what the primary has."""
        ((end,),) = self.primary.ask("SELECT pg_current_wal_flush_lsn()")
        self._await(f"SELECT bool_and(flush_lsn >= '{end}') FROM pg_stat_replication")

    def hold_back(self) -> None:
        """Let the standby receive nothing more."""
        ((sender,),) = self.primary.ask("SELECT pid FROM pg_stat_replication")
        os.kill(sender, signal.SIGSTOP)

    def fail_over(self) -> None:
        """Let the primary die for good. The standby takes its place with what it has."""
        self.primary.kill()
        self.standby.promote()
        self.primary = self.standby

    def mend(self) -> None:
        """Start the dead server as the standby of the other one."""
        self.standby.follow(self.primary)
        self._follow()

    def _follow(self) -> None:
        self.standby.start()
        state = "sync" if self._is_synchronous else "async"
        if self._is_synchronous:  # not before there is one: commits wait for it
            self.primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.primary.ask("SELECT pg_reload_conf()")
        self._await(f"SELECT bool_and(state = 'streaming' AND sync_state = '{state}') FROM pg_stat_replication")

    def _await(self, condition: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while self.primary.ask(condition) != [(True,)]:
            assert time.monotonic() < deadline, condition
            time.sleep(0.02)
