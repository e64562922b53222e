"""`uponce migrate`"""

from uponce.cli.options import Data, Json, say
from uponce.config import load
from uponce.wiring import opened


def run(data: Data = None, as_json: Json = False) -> None:
    """Make or upgrade the database tables, as a starting server does.

    It is safe beside running servers of the previous release.
    """
    with opened(load(data=data), create=True) as backend:
        described = backend.database.describe()
    say(described, {"database": described}, as_json)
