"""`uponce fence`"""

from uponce.app.backup import fence
from uponce.cli.options import Data, Json, say
from uponce.cli.store import on_store
from uponce.config import load
from uponce.core.freshness import utc


def run(data: Data = None, as_json: Json = False) -> None:
    """Refuse every signature that may have been used since a copy of the database was made.

    Run it once after restoring a database with other tools than `uponce restore`, and before serving. If the server has
    another UPONCE_SKEW than the default, set it here too.
    """
    watermark = on_store(load(data=data), fence)
    say(told(watermark), {"watermark": watermark}, as_json)


def told(watermark: int) -> str:
    """Return one sentence about what a fence means."""
    return (
        f"uponce refuses every signature with a timestamp up to {utc(watermark)} from now on; newer signatures work, "
        "and new keys work at once"
    )
