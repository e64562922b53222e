"""`uponce fence`"""

from functools import partial

import typer

from uponce.app.backup import fence
from uponce.app.owner import take_storage
from uponce.app.services import Services
from uponce.cli.options import Data, Json, TrustClock, say, warn
from uponce.cli.store import on_store
from uponce.config import load
from uponce.core.errors import UponceError
from uponce.core.signature import utc


def run(
    take: bool = typer.Option(
        False,
        "--take-storage",
        help="Take the storage from another database, however few of its files this one names. Sweeps delete the rest.",
    ),
    trust_clock: TrustClock = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Refuse every signature that may have been used since a copy of the database was made.

    Run it once after restoring a database with other tools than `uponce restore`, and before serving. From then on the
    storage belongs to this database alone, and not to the database that it is a copy of. If the storage belongs to
    another database, this one takes it if it names nine of ten files there. It also takes an empty storage without an
    owner. A database of an earlier release is upgraded.
    """
    watermark, is_taken = on_store(load(data=data), partial(_fence, take=take, trusts_clock=trust_clock), upgrade=True)
    taken = (
        "\nUPONCE_STORAGE belongs to this database now. Sweeps delete the files there that this database does not "
        "name. Keep all servers of other databases on this storage stopped"
    )
    say(f"{told(watermark)}{taken * is_taken}", {"watermark": watermark, "storage_taken": is_taken}, as_json)


async def _fence(services: Services, take: bool, trusts_clock: bool) -> tuple[int, bool]:
    watermark = await fence(services, trusts_clock=trusts_clock)
    try:
        return watermark, await take_storage(services.database, services.blobs, anyway=take)
    except UponceError:
        warn(told(watermark))
        raise


def told(watermark: int) -> str:
    """Return one sentence about the effect of a fence."""
    return (
        f"uponce refuses every signature with a timestamp up to {utc(watermark)} from now on; newer signatures work, "
        "and keys of `uponce keys create` work at once"
    )
