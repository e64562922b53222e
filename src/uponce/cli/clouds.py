"""`uponce clouds`: create and list clouds, and set what their uploads are passed on to."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from uponce.app.manage_clouds import (
    Cloud,
    create_cloud,
    find_former_keys,
    list_clouds,
    set_upstream,
    still_accepted,
)
from uponce.app.services import Services
from uponce.cli.address import cloudinary_url, find_base_url
from uponce.cli.options import STDIN, Data, Json, say, say_table, warn_of_secret
from uponce.cli.store import on_store
from uponce.config import load
from uponce.core.upstream import parse_upstream, url_of
from uponce.core.values import Upstream

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def create(
    name: str = typer.Argument(metavar="NAME", help="Name of the new cloud. Its URLs contain this name."),
    data: Data = None,
    relay: str | None = typer.Option(
        None,
        help="Account that stores the media: cloudinary://KEY:SECRET@CLOUD?upload_prefix=https://api.cloudinary.com. "
        "Other options: window=SECONDS if the account accepts signatures for another time than 3600, "
        "signature_algorithm=sha256, and identify=context if its presets rename uploads or set their type. "
        "With - the URL comes from the standard input, so that no other user of this machine sees the secret.",
    ),
    same_keys: bool = typer.Option(
        False, "--same-keys", help="Accept signatures of the account's own key, so the backend needs no new key."
    ),
    as_json: Json = False,
) -> None:
    """Make a cloud with two API keys and print a CLOUDINARY_URL for each.

    With --relay, uponce checks and spends each signature and passes the upload on. The account stores the media.
    """
    settings, upstream = load(data=data), None if relay is None else _upstream(relay)
    keys = on_store(
        settings,
        lambda services: create_cloud(services, name, upstream, window=settings.window, same_keys=same_keys),
        create=True,
    )
    base = find_base_url(settings)
    urls = [{"name": key.name, "cloudinary_url": cloudinary_url(key, base)} for key in keys]
    lines = [f"# key {url['name']!r}\nCLOUDINARY_URL={url['cloudinary_url']}" for url in urls]
    if upstream is not None:
        lines.append(f"uploads of cloud {name} are passed on to {url_of(upstream)}")
    say("\n".join(lines), {"cloud": name, "upstream": upstream and url_of(upstream), "keys": urls}, as_json)


@app.command("list")
def list_(data: Data = None, as_json: Json = False) -> None:
    """Show all clouds with their keys and upstreams, without secrets."""
    clouds = on_store(load(data=data), list_clouds)
    value = list(map(_as_data, clouds))
    rows = ((cloud["cloud"], " ".join(_marked(cloud)), cloud["upstream"] or "-") for cloud in value)
    say_table(("cloud", "API keys", "upstream"), rows, value, as_json)


def _as_data(cloud: Cloud) -> dict[str, Any]:
    return {
        "cloud": cloud.name,
        "api_keys": [key.api_key for key in cloud.keys if key.revoked_at is None],
        "revoked_api_keys": [key.api_key for key in cloud.keys if key.revoked_at is not None],
        "upstream": cloud.upstream and url_of(cloud.upstream),
    }


def _marked(cloud: Mapping[str, Any]) -> list[str]:
    return [*cloud["api_keys"], *(f"{key} (revoked)" for key in cloud["revoked_api_keys"])]


@app.command()
def relay(
    name: str = typer.Argument(metavar="NAME", help="The cloud, as `uponce clouds list` shows it."),
    url: str | None = typer.Argument(
        None, metavar="URL", help="The account, as for `create --relay`. With - from the standard input."
    ),
    data: Data = None,
    off: bool = typer.Option(False, "--off", help="Store uploads here again."),
) -> None:
    """Pass the uploads of a cloud on to an account from now on."""
    if off == (url is not None):
        raise typer.BadParameter("Name the account's URL, or --off.")
    upstream = None if url is None else _upstream(url)

    async def pass_on(services: Services) -> tuple[int, Sequence[str]]:
        former = await find_former_keys(services, name, upstream)
        return await set_upstream(services, name, upstream), former

    pending, former = on_store(load(data=data), pass_on)
    where = "stored here" if upstream is None else f"passed on to {url_of(upstream)}"
    typer.echo(f"uploads of cloud {name} are {where}")
    if pending:
        typer.echo(
            f"{pending} uploads are pending, of all clouds. Those of {name} wait until the account that received them "
            "is set again. `uponce outbox list` shows them."
        )
    for api_key in former:
        typer.echo(still_accepted(api_key), err=True)


def _upstream(url: str) -> Upstream:
    if url == STDIN:
        return parse_upstream(sys.stdin.readline())
    upstream = parse_upstream(url)
    warn_of_secret()
    return upstream
