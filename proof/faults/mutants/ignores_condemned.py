"""`dawdling` that commits what a sweep has condemned since: a row whose bytes are gone."""

import proof.faults.dawdling  # noqa: F401
from proof.faults.statements import change
from uponce.cli import main

change("postgres", "find_condemned", ":blob_key", ":blob_key AND false")

if __name__ == "__main__":
    main()
