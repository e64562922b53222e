"""`uponce sweep`"""

from dataclasses import asdict, replace

import typer

from uponce.app.check import check_frozen
from uponce.app.services import Services
from uponce.app.sweep import Swept, sweep
from uponce.cli.options import Data, Json, say
from uponce.cli.store import of_server, on_store
from uponce.config import gather, load


def run(
    data: Data = None,
    grace: int | None = typer.Option(
        None,
        min=0,
        help="Spare files younger than this, in seconds, and all orphans so long after a fence. With less than 600, "
        "uploads that are arriving break off. "
        "[UPONCE_GRACE_SECONDS, the server's, 7200]",
    ),
    as_json: Json = False,
) -> None:
    """Delete bytes that no asset names, and forget grants whose time is over.

    A running server does the same every few minutes. It is safe beside a running server. Old rows of the audit are
    deleted only if UPONCE_AUDIT_DAYS is set, since the server may keep them longer than the default. So are dead
    notifications, by UPONCE_NOTIFICATION_DAYS. Unfinished uploads and orphans have the time that the server gives them,
    unless this shell sets another time.
    """
    settings, given = load(data=data), gather(data=data)
    audit_seconds = settings.audit_seconds if "audit_days" in given else None
    dead_seconds = settings.dead_seconds if "notification_days" in given else None

    async def work(services: Services) -> Swept:
        await check_frozen(services)  # or it would succeed whenever it finds nothing to delete
        server = await of_server(services, settings, given)
        return await sweep(
            replace(services, limits=server.limits),
            grace_seconds=server.grace_seconds if grace is None else grace,
            audit_seconds=audit_seconds,
            dead_seconds=dead_seconds,
        )

    swept = on_store(settings, work)
    kept = "" if audit_seconds is not None else "\nThe audit stays: UPONCE_AUDIT_DAYS is not set here."
    kept += "" if dead_seconds is not None else "\nDead notifications stay: UPONCE_NOTIFICATION_DAYS is not set here."
    say(
        f"removed {swept.unfinished} unfinished uploads and {swept.blobs} orphaned blobs ({swept.bytes} bytes), "
        f"ended {swept.series} series that were never completed, forgot {swept.grants} grants{kept}",
        asdict(swept),
        as_json,
    )
