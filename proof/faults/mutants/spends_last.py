"""A launcher of `uponce` that spends one signature of an upload in chunks, as if all were the same."""

from uponce.adapters.database import series as operations
from uponce.cli import main

# At import, not under the guard: worker processes import this file and never run it.
grants_of = operations._grants_of
operations._grants_of = lambda rows: grants_of(rows[-1:])

if __name__ == "__main__":
    main()
