"""`uponce fence`"""

from uponce.app.backup import fence
from uponce.app.owner import take_storage
from uponce.app.services import Services
from uponce.cli.options import Data, Json, say, warn
from uponce.cli.store import on_store
from uponce.config import load
from uponce.core.errors import UponceError
from uponce.core.freshness import utc


def run(data: Data = None, as_json: Json = False) -> None:
    """Refuse every signature that may have been used since a copy of the database was made.

    Run it once after restoring a database with other tools than `uponce restore`, and before serving. If the storage
    belongs to another database, and this one names files there, the storage belongs to this one from then on. If the
    server has another UPONCE_SKEW than the default, set it here too.
    """
    watermark, is_taken = on_store(load(data=data), _fence)
    taken = (
        "\nUPONCE_STORAGE belonged to another database, and belongs to this one now. Sweeps delete the files there "
        "that this database does not name. Keep all servers of the other database stopped"
    )
    say(f"{told(watermark)}{taken * is_taken}", {"watermark": watermark, "storage_taken": is_taken}, as_json)


async def _fence(services: Services) -> tuple[int, bool]:
    watermark = await fence(services)
    try:
        return watermark, await take_storage(services.database, services.blobs)
    except UponceError:
        warn(told(watermark))
        raise


def told(watermark: int) -> str:
    """Return one sentence about the effect of a fence."""
    return (
        f"uponce refuses every signature with a timestamp up to {utc(watermark)} from now on; newer signatures work, "
        "and new keys work at once"
    )
