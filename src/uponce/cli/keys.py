"""`uponce keys`: create, list, revoke and rotate API keys."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import typer

from uponce.cli.options import Data, Json, print_json
from uponce.core.freshness import span, utc
from uponce.core.signature import Algorithm
from uponce.core.values import ApiKey, KeyScope, KeyUses

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="API keys and their policies: create, list, revoke, rotate.")


@app.command()
def create(
    data: Data = None,
    cloud: str | None = typer.Option(None, help="Cloud (tenant) of the key; a new name makes a new cloud."),
    name: str = typer.Option("", help="What the key is for, in your words."),
    uses: KeyUses = typer.Option(KeyUses.ONCE, help="How often one signature works."),
    scope: KeyScope = typer.Option(KeyScope.UPLOAD, help="What its signatures are good for."),
    window: int | None = typer.Option(
        None, help="Seconds a signature lives. [UPONCE_WINDOW, 3600]", show_default=False
    ),
    allow_v1: bool = typer.Option(False, help="Accept signatures of old SDKs whose values contain '&' (unsafe)."),
    sha256_only: bool = typer.Option(False, help="Refuse SHA-1 signatures."),
    as_json: Json = False,
) -> None:
    """Make a key and print its CLOUDINARY_URL."""
    from uponce.app.manage_keys import create_key

    _print_new(
        data,
        as_json,
        lambda backend: create_key(
            backend.services,
            cloud or backend.settings.cloud,
            name=name,
            uses=uses,
            scope=scope,
            window=backend.settings.window if window is None else window,
            allow_v1=allow_v1,
            algorithms=(Algorithm.SHA256,) if sha256_only else tuple(Algorithm),
        ),
        create=True,
    )


@app.command("list")
def list_(data: Data = None, as_json: Json = False) -> None:
    """Show all keys, without their secrets."""
    found = _with_backend(data, lambda backend: backend.services.database.list_keys())
    if as_json:
        print_json([_public(key) for key in found])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("API key", "cloud", "name", "uses", "scope", "window", "state", box=None)
    for key in found:
        state = "active" if key.revoked_at is None else f"revoked {utc(key.revoked_at)}"
        table.add_row(key.api_key, key.cloud, key.name, key.uses, key.scope, span(key.window), state)
    Console().print(table)


@app.command()
def revoke(api_key: str, data: Data = None, as_json: Json = False) -> None:
    """Refuse a key and all its signatures from now on."""
    from uponce.app.manage_keys import revoke_key

    key = _with_backend(data, lambda backend: revoke_key(backend.services, api_key))
    if as_json:
        print_json(_public(key))
        return
    typer.echo(f"revoked {key.api_key}")


@app.command()
def rotate(
    api_key: str,
    data: Data = None,
    overlap: int | None = typer.Option(None, help="Seconds the old secret still counts; the key's window otherwise."),
    as_json: Json = False,
) -> None:
    """Give a key a new secret and print its CLOUDINARY_URL."""
    from uponce.app.manage_keys import rotate_key

    _print_new(data, as_json, lambda backend: rotate_key(backend.services, api_key, overlap))


def _print_new(
    data: str | None, as_json: bool, make: Callable[[Any], Awaitable[ApiKey]], *, create: bool = False
) -> None:
    from uponce.cli.serve import base_url, cloudinary_url
    from uponce.config import load

    key = _with_backend(data, make, create=create)
    settings = load(data=data)
    url = cloudinary_url(key, base_url(settings, settings.port))
    if as_json:
        print_json({**_public(key), "cloudinary_url": url})
        return
    typer.echo(f"CLOUDINARY_URL={url}")


def _with_backend(data: str | None, use: Callable[[Any], Awaitable[T]], *, create: bool = False) -> T:
    from uponce.config import load
    from uponce.wiring import opened

    async def run(backend: Any) -> T:
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
