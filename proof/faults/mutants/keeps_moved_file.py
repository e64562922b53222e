"""A launcher of `uponce` that does not look whether the file it writes is still the one that the next start opens."""

from uponce.adapters.database.sqlite import connection
from uponce.cli import main


def never_another(path: object) -> tuple[int, int]:
    return 0, 0


# At import, not under the guard: worker processes import this file and never run it.
connection.identity = never_another

if __name__ == "__main__":
    main()
