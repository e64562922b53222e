"""The work of `uponce keys`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from uponce.app.manage_keys import create_key, revoke_key, rotate_key
from uponce.cli.options import print_json
from uponce.cli.serve import base_url, cloudinary_url
from uponce.config import load
from uponce.core.freshness import span, utc
from uponce.core.signature import Algorithm
from uponce.core.values import ApiKey, KeyScope, KeyUses
from uponce.wiring import Backend, opened

T = TypeVar("T")


def create(
    *,
    data: str | None,
    cloud: str | None,
    name: str,
    uses: str,
    scope: str,
    window: int | None,
    allow_v1: bool,
    sha256_only: bool,
    as_json: bool,
) -> None:
    _print_new(
        data,
        as_json,
        lambda backend: create_key(
            backend.services,
            cloud or backend.settings.cloud,
            name=name,
            uses=KeyUses(uses),
            scope=KeyScope(scope),
            window=backend.settings.window if window is None else window,
            allow_v1=allow_v1,
            algorithms=(Algorithm.SHA256,) if sha256_only else tuple(Algorithm),
        ),
        create=True,
    )


def list_(*, data: str | None, as_json: bool) -> None:
    found = _with_backend(data, lambda backend: backend.services.database.list_keys())
    if as_json:
        print_json([_public(key) for key in found])
        return
    table = Table("API key", "cloud", "name", "uses", "scope", "window", "state", box=None)
    for key in found:
        state = "active" if key.revoked_at is None else f"revoked {utc(key.revoked_at)}"
        table.add_row(key.api_key, key.cloud, key.name, key.uses, key.scope, span(key.window), state)
    Console().print(table)


def revoke(api_key: str, *, data: str | None, as_json: bool) -> None:
    key = _with_backend(data, lambda backend: revoke_key(backend.services, api_key))
    if as_json:
        print_json(_public(key))
        return
    typer.echo(f"revoked {key.api_key}")


def rotate(api_key: str, overlap: int | None, *, data: str | None, as_json: bool) -> None:
    _print_new(data, as_json, lambda backend: rotate_key(backend.services, api_key, overlap))


def _print_new(
    data: str | None, as_json: bool, make: Callable[[Backend], Awaitable[ApiKey]], *, create: bool = False
) -> None:
    key = _with_backend(data, make, create=create)
    settings = load(data=data)
    url = cloudinary_url(key, base_url(settings, settings.port))
    if as_json:
        print_json({**_public(key), "cloudinary_url": url})
        return
    typer.echo(f"CLOUDINARY_URL={url}")


def _with_backend(data: str | None, use: Callable[[Backend], Awaitable[T]], *, create: bool = False) -> T:
    async def run(backend: Backend) -> T:
        return await use(backend)

    with opened(load(data=data), create=create) as backend:
        return asyncio.run(run(backend))


def _public(key: ApiKey) -> dict[str, Any]:
    return {
        "api_key": key.api_key,
        "cloud": key.cloud,
        "name": key.name,
        "uses": key.uses,
        "scope": key.scope,
        "window": key.window,
        "allow_v1": key.allow_v1,
        "algorithms": key.algorithms,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
