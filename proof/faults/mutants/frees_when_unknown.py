"""A launcher of `uponce` whose relay takes an upstream that did not answer for one that stored nothing."""

from uponce.app.relaying.relay import Relaying
from uponce.cli import main

# At import, not under the guard: worker processes import this file and never run it.
Relaying._hasten = Relaying._free  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
