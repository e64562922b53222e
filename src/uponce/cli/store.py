"""Run the work of a command on the database and the blob store."""

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

from uponce.app.check import check_frozen
from uponce.app.owner import claim_storage
from uponce.app.services import Services
from uponce.cli.address import running_server
from uponce.config import Settings, gather, masked, with_noted
from uponce.core.errors import DatabaseUnavailable, SettingRefused
from uponce.wiring import missing, opened

T = TypeVar("T")


def on_store(
    settings: Settings,
    work: Callable[[Services], Coroutine[Any, Any, T]],
    *,
    create: bool = False,
    upgrade: bool = False,
) -> T:
    """Return what the work returns. Raise NotFound if there is no database, unless `create`. `upgrade` is for `opened`.

    With `create`, a new database claims the storage. Raise SettingRefused if it cannot, if a server runs on the data
    folder with another database, or if the work failed since the database is frozen.
    """

    async def run(services: Services) -> T:
        if create and await services.database.owner() is None:
            await claim_storage(services.database, services.blobs)
        try:
            return await work(services)
        except DatabaseUnavailable:
            await check_frozen(services)  # its refusal names the cure
            raise

    if create:
        refuse_second_database(settings)
    with opened(settings, create=create, upgrade=upgrade) as backend:
        return asyncio.run(run(backend.services))


def refuse_second_database(settings: Settings) -> None:
    """Raise SettingRefused if these settings name no database yet, although a server runs on this data folder.

    In a shell without the server's settings, a command would make an empty one, and print keys that the server refuses.
    """
    server = running_server(settings) if missing(settings) else None
    if server:
        raise SettingRefused(
            f"The server at {server} runs on {settings.data_dir} with another database than "
            f"{masked('database', settings.database_url)}. Give this command the settings of the server, such as "
            "UPONCE_DATABASE. For another server, name another folder with --data."
        )


async def cloud_of(services: Services, settings: Settings, named: str | None = None) -> str:
    """Return `named`, else the cloud of this shell's settings if they give one, else of the server that started last.

    A command in a shell without the server's settings must not make another cloud: a relay does not pass on its files.
    """
    if named:
        return named
    if settings.relay is not None or "cloud" in gather():
        return settings.cloud
    return (await of_server(services, settings)).cloud


async def of_server(services: Services, settings: Settings, given: Collection[str] = ()) -> Settings:
    """Return the settings of this shell, except those that the server noted which started last.

    The `given` settings are always those of this shell.
    """
    found = await services.database.noted_settings()
    return with_noted(settings, {name: value for name, value in found.items() if name not in given})
