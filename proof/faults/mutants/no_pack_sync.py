"""A launcher of `uponce` that commits blobs of packs before their bytes are on the disk."""

from uponce.adapters.store import packs
from uponce.cli import main

# At import, not under the guard: worker processes import this file and never run it.
packs.sync_data = lambda descriptor: None  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
