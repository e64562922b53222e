"""`uponce migrate`"""

from uponce.cli.options import Data, Json, say
from uponce.cli.store import refuse_second_database
from uponce.config import load
from uponce.wiring import opened


def run(data: Data = None, as_json: Json = False) -> None:
    """Make or upgrade the database tables, as a starting server does.

    It is safe beside running servers of the previous release. Only it, `uponce serve` and `uponce fence` upgrade
    a database: the other commands refuse that of an earlier release.
    """
    settings = load(data=data)
    refuse_second_database(settings)
    with opened(settings, create=True, upgrade=True) as backend:
        described = backend.database.describe()
    say(described, {"database": described}, as_json)
