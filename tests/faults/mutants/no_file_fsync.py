"""A launcher of `uponce` whose blobs are renamed and committed before their bytes are on the disk."""

from uponce.adapters.blobs.local import LocalStage, _rename, _sync_folder
from uponce.cli import main


def publish(self: LocalStage) -> None:
    target = self._store.path_of(self.key)
    with self._lock:
        _rename(self._path, target)
        _sync_folder(target.parent)
        self._close()


# At import, not under the guard: worker processes import this file and never run it.
LocalStage._publish = publish  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
