"""A launcher of `uponce` whose database answers before its log is on the disk: synchronous=NORMAL."""

from uponce.adapters.database.sqlite import connection
from uponce.cli import main

# At import, not under the guard: worker processes import this file and never run it.
connection._SETTINGS = (*connection._SETTINGS, "PRAGMA synchronous = NORMAL")  # type: ignore[assignment]
connection._FULL = 1

if __name__ == "__main__":
    main()
