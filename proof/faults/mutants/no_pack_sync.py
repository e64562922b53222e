"""A launcher of `uponce` that commits blobs of packs before their bytes are on the disk."""

from uponce.adapters.store import packs
from uponce.cli import main

# At import, not under the guard: worker processes import this file and never run it.
packs.sync_data = lambda descriptor: None  # type: ignore[attr-defined]
# On an idle disk a write that has only been started is over before the power is cut.
packs.start_writeback = lambda *_: None  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
