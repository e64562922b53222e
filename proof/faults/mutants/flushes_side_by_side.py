"""`uponce` that writes a large piece of an upload beside the small piece before it: they may change places."""

from uponce.adapters.spool.buffered import BufferedWriter
from uponce.cli import main

flush = BufferedWriter._flush


async def _beside_a_small_one(self: BufferedWriter) -> None:
    self._was_large = True
    await flush(self)


BufferedWriter._flush = _beside_a_small_one  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
