"""`uponce` that loses the first byte after a piece of a block, if a block goes to its reader in pieces."""

from uponce.cli import main
from uponce.web.blocks import Block, Blocks

take = Blocks.take


def _one_too_late(self: Blocks, reader: object, offset: int) -> Block:
    return take(self, reader, offset + 1 if offset else 0)


Blocks.take = _one_too_late  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
