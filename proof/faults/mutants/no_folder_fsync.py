"""A launcher of `uponce` whose blobs are renamed into folders that are never synced.

When other metadata is synced, such as a growing write-ahead log, a journal writes the rename too. So the log starts
over early here, as it does in every server after a while.
"""

import os

from uponce.adapters.database.sqlite import connection
from uponce.adapters.store import local
from uponce.cli import main

# At import, not under the guard: worker processes import this file and never run it.
# A file of a group is made where it stays, and its own fsync carries its name along on XFS: so all are renamed.
os.environ["UPONCE_SMALL_BODY_BYTES"] = "0"
local.sync_folder = lambda folder: None  # type: ignore[attr-defined]
connection._SETTINGS = (*connection._SETTINGS, "PRAGMA wal_autocheckpoint = 20")  # type: ignore[assignment]

if __name__ == "__main__":
    main()
