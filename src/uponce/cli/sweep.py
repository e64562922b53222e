"""`uponce sweep`"""

from dataclasses import asdict

import typer

from uponce.app.sweep import sweep
from uponce.cli.options import Data, Json, say
from uponce.cli.store import on_store
from uponce.config import gather, load


def run(
    data: Data = None,
    grace: int | None = typer.Option(
        None, min=0, help="Spare files younger than this, in seconds. [UPONCE_GRACE_SECONDS, 7200]"
    ),
    as_json: Json = False,
) -> None:
    """Delete bytes that no asset names, and forget grants whose time is over.

    A running server does the same every few minutes. It is safe beside a running server. Old rows of the audit are
    deleted only if UPONCE_AUDIT_DAYS is set, since the server may keep them longer than the default. So are dead
    notifications, by UPONCE_NOTIFICATION_DAYS.
    """
    settings, given = load(data=data), gather(data=data)
    audit_seconds = settings.audit_seconds if "audit_days" in given else None
    dead_seconds = settings.dead_seconds if "notification_days" in given else None
    grace_seconds = settings.grace_seconds if grace is None else grace
    swept = on_store(
        settings,
        lambda services: sweep(
            services, grace_seconds=grace_seconds, audit_seconds=audit_seconds, dead_seconds=dead_seconds
        ),
    )
    kept = "" if audit_seconds is not None else "\nThe audit stays: UPONCE_AUDIT_DAYS is not set here."
    kept += "" if dead_seconds is not None else "\nDead notifications stay: UPONCE_NOTIFICATION_DAYS is not set here."
    say(
        f"removed {swept.unfinished} unfinished uploads and {swept.blobs} orphaned blobs ({swept.bytes} bytes), "
        f"ended {swept.series} series that were never completed, forgot {swept.grants} grants{kept}",
        asdict(swept),
        as_json,
    )
