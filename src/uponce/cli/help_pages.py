"""typer's help pages, without the Markdown parser and the traceback printer that they import for other uses than ours.

Importing those two took a third of the time of `uponce --help`.
"""

import importlib
import sys
from types import ModuleType

_UNUSED = {"rich.markdown": "Markdown", "rich.traceback": "Traceback"}


def load() -> None:
    """Import what prints them. Whoever else imports those two modules later gets them whole."""
    absent = {name: attribute for name, attribute in _UNUSED.items() if name not in sys.modules}
    for name, attribute in absent.items():
        sys.modules[name] = ModuleType(name)
        setattr(sys.modules[name], attribute, object)
    try:
        importlib.import_module("typer.rich_utils")
    finally:
        for name in absent:
            del sys.modules[name]
