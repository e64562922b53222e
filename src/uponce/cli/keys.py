"""`uponce keys`: create, import, list, revoke, rotate and renew API keys."""

import asyncio
import sys
from typing import Annotated, Any, Literal

import typer

from uponce.app.manage_keys import (
    MAX_WINDOW,
    PLAYGROUND,
    import_keys,
    new_key,
    renew_keys,
    revoke_key,
    rotate_key,
)
from uponce.app.services import Services
from uponce.cli.address import cloudinary_url, find_base_url
from uponce.cli.options import Data, Json, print_json, say, say_table, warn
from uponce.cli.store import cloud_of, on_store
from uponce.config import Settings, load, parse_key
from uponce.core.errors import InvalidParameter
from uponce.core.signature import duration, utc
from uponce.core.upstream import url_of
from uponce.core.values import Algorithm, ApiKey, KeyScope, KeyUses
from uponce.wiring import opened

_PUBLIC = ("api_key", "cloud", "name", "uses", "scope", "window", "allow_v1", "algorithms", "created_at", "revoked_at")
_MOST_OVERLAP = 100 * 365 * 86400  # databases can store the end of this time

Known = Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, as `uponce keys list` shows it.")]
Name = Annotated[str, typer.Option(help="What the key is for, in your words.")]
Uses = Annotated[Literal["once", "unlimited"], typer.Option(help="How often one signature works.")]
Scope = Annotated[
    Literal["upload", "all"],
    typer.Option(help="What its signatures allow: uploads only, or everything the API offers."),
]
Window = Annotated[
    int | None,
    typer.Option(
        min=1, max=MAX_WINDOW, help="Seconds that a signature lives. [UPONCE_WINDOW, 3600]", show_default=False
    ),
]

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def create(
    data: Data = None,
    cloud: str | None = typer.Option(
        None,
        help="Cloud (tenant) of the key; a new name makes a new cloud. [UPONCE_CLOUD, the server's cloud, media]",
        show_default=False,
    ),
    name: Name = "",
    uses: Uses = "once",
    scope: Scope = "upload",
    window: Window = None,
    allow_v1: bool = typer.Option(False, help="Accept signatures of old SDKs whose values contain '&' (unsafe)."),
    sha256_only: bool = typer.Option(False, help="Refuse SHA-1 signatures."),
    as_json: Json = False,
) -> None:
    """Make a key and print its CLOUDINARY_URL."""
    settings = load(data=data)

    async def work(services: Services) -> ApiKey:
        owner = await cloud_of(services, settings, cloud)
        if cloud is None:
            await _warn_of_new(services, owner)
        key = new_key(
            services,
            owner,
            name=name,
            uses=KeyUses(uses),
            scope=KeyScope(scope),
            window=settings.window if window is None else window,
            allow_v1=allow_v1,
            algorithms=(Algorithm.SHA256,) if sha256_only else tuple(Algorithm),
        )
        await services.database.add_key(key, new=True)
        return key

    _print_new(settings, on_store(settings, work, create=True), as_json)


async def _warn_of_new(services: Services, cloud: str) -> None:
    others = set(await services.database.key_clouds()) - {PLAYGROUND}
    if others and cloud not in others:
        warn(
            f"{cloud} is a new cloud. The other keys are of {', '.join(sorted(others))}. For a key of such a cloud, "
            "name the cloud with --cloud, or set UPONCE_CLOUD."
        )


@app.command("import")
def import_(data: Data = None, as_json: Json = False) -> None:
    """Bring keys with their secrets: a backend that signs with a pair already keeps it.

    The standard input has one key a line:
    cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload&window=3600&name=browser.
    With signature_algorithm=sha256 the key refuses SHA-1.
    A key that exists is never changed; one that differs ends the command with exit code 1.
    """
    settings = load(data=data)
    lines = enumerate(sys.stdin.read().split("\n"), 1)
    keys = [parse_key(word, settings.window, f"line {number}") for number, line in lines for word in line.split()]
    if not keys:
        raise InvalidParameter("The standard input has no key. Write one a line: cloudinary://KEY:SECRET@CLOUD.")
    added, conflicts = on_store(settings, lambda services: import_keys(services, keys), create=True)
    if as_json:
        differing = [{"api_key": conflict.api_key, "what": conflict.what} for conflict in conflicts]
        print_json({"imported": [_public(key) for key in added], "conflicts": differing})
    elif not conflicts:
        rest = "" if len(added) == len(keys) else "; the others exist already, with the same secret"
        typer.echo(f"imported {len(added)} of {len(keys)} keys{rest}")
    for conflict in conflicts:
        typer.secho(
            f"uponce: API key {conflict.api_key} exists already and differs: {conflict.what}. It was not changed.",
            fg="red",
            err=True,
        )
    if conflicts:
        raise typer.Exit(1)


@app.command("list")
def list_(data: Data = None, as_json: Json = False) -> None:
    """Show all keys, without their secrets, and how long a rotated secret stays valid."""
    found = on_store(load(data=data), lambda services: services.database.list_keys())
    columns = ("API key", "cloud", "name", "uses", "scope", "window", "state")
    value = [{**_public(key), "old_secret_until": _old_until(key)} for key in found]
    say_table(columns, map(_row, found), value, as_json)


def _old_until(key: ApiKey) -> int | None:
    return key.old_secret_until if key.revoked_at is None else None


def _row(key: ApiKey) -> tuple[str, ...]:
    state = "active" if key.revoked_at is None else f"revoked {utc(key.revoked_at)}"
    if (until := _old_until(key)) is not None:
        state += f", old secret valid until {utc(until)}"
    return key.api_key, key.cloud, key.name, key.uses, key.scope, duration(key.window), state


@app.command()
def revoke(api_key: Known, data: Data = None, as_json: Json = False) -> None:
    """Refuse a key and all its signatures from now on.

    So delivery URLs of private and authenticated assets get 401 if this key signed them. The assets stay.
    """
    key = on_store(load(data=data), lambda services: revoke_key(services, api_key))
    say(f"revoked {key.api_key}", _public(key), as_json)
    _warn_of_urls("this key", "from now on")


@app.command()
def rotate(
    api_key: Known,
    data: Data = None,
    overlap: int | None = typer.Option(
        None, min=0, max=_MOST_OVERLAP, help="Seconds that the old secret stays valid. By default the key's window."
    ),
    yes: bool = typer.Option(False, "--yes", help="End the secret before the old one at once, if it still works."),
    as_json: Json = False,
) -> None:
    """Give a key a new secret and print its CLOUDINARY_URL.

    The new secret works if the command succeeds. When the old secret ends, delivery URLs of private and authenticated
    assets get 401 if the old secret signed them. The assets stay. A key has two secrets at most: while an older one
    works, the command is refused without --yes or --overlap 0, which end it at once. With --overlap 0, unfinished
    uploads of the key in chunks or by tus end too.
    """
    settings = load(data=data)

    def show(key: ApiKey) -> None:
        _print_new(settings, key, as_json)

    on_store(settings, lambda services: rotate_key(services, api_key, overlap, keeps_older=not yes, show=show))
    _warn_of_urls("the old secret", "from now on" if overlap == 0 else "when the old secret ends")


@app.command()
def renew(
    data: Data = None,
    yes: bool = typer.Option(False, "--yes", help="Do it. Without this option, only show which keys it would change."),
    as_json: Json = False,
) -> None:
    """Last resort when secret.key is lost and no backup has it: replace every API secret that cannot be read.

    Prints the new CLOUDINARY_URL of each key. Signatures made with the old secrets are refused from then on, also those
    in delivery URLs of private and authenticated assets. Unfinished uploads of these keys end. Keys whose secret can be
    read stay as they are. Spent signatures stay spent. A cloud that passes uploads on refuses them until you set
    its account again.
    """
    settings = load(data=data)
    renewed: list[dict[str, Any]] = []
    lost = None

    def show(key: ApiKey) -> None:
        url = cloudinary_url(key, base)
        renewed.append({**_public(key), "cloudinary_url": url})
        if not as_json and key.revoked_at is None:
            typer.echo(f"CLOUDINARY_URL={url}")

    try:
        with opened(settings) as backend:
            base = find_base_url(settings)
            lost = asyncio.run(renew_keys(backend.services, backend.secrets.make_key, confirmed=yes, show=show))
    finally:
        if as_json and (renewed or lost is not None):
            print_json(renewed)
    for cloud, upstream in lost.items():
        warn(
            f"cloud {cloud} refuses uploads until you set the account {url_of(upstream)} again, with its secret: "
            f"`uponce clouds relay {cloud} URL`"
        )
    if not (as_json or renewed or lost):
        typer.echo("the secret of every API key can be read; nothing was changed")


def _print_new(settings: Settings, key: ApiKey, as_json: bool) -> None:
    url = cloudinary_url(key, find_base_url(settings))
    say(f"CLOUDINARY_URL={url}", {**_public(key), "cloudinary_url": url}, as_json)


def _warn_of_urls(signer: str, when: str) -> None:
    warn(
        f"delivery URLs of private and authenticated assets get 401 {when}, if {signer} signed them. The assets stay: "
        "`resource` of the Admin API returns their new URLs."
    )


def _public(key: ApiKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in _PUBLIC}
