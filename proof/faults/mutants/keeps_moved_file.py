"""A launcher of `uponce` that does not look whether the file it writes is still the one that the next start opens."""

from uponce.adapters.database import sqlite
from uponce.cli import main


def never_another(path: object) -> tuple[int, int]:
    return 0, 0


# At import, not under the guard: worker processes import this file and never run it.
sqlite.identity = never_another  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
