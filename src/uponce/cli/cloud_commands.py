"""The work of `uponce clouds`."""

import asyncio
import sys

import typer
from rich.console import Console
from rich.table import Table

from uponce.app.manage_clouds import create_cloud, list_clouds, set_upstream
from uponce.cli.address import cloudinary_url, find_base_url
from uponce.cli.options import print_json
from uponce.config import load
from uponce.core.upstream import parse_upstream, url_of
from uponce.core.values import Upstream
from uponce.wiring import opened

_STDIN = "-"


def create(name: str, *, data: str | None, relay: str | None, same_keys: bool, as_json: bool) -> None:
    settings, upstream = load(data=data), None if relay is None else _upstream(relay)
    with opened(settings, create=True) as backend:
        make = create_cloud(backend.services, name, upstream, window=settings.window, same_keys=same_keys)
        keys = asyncio.run(make)
    base = find_base_url(settings, None)
    if as_json:
        urls = [{"name": key.name, "cloudinary_url": cloudinary_url(key, base)} for key in keys]
        print_json({"cloud": name, "upstream": upstream and url_of(upstream), "keys": urls})
        return
    for key in keys:
        typer.echo(f"# key {key.name!r}")
        typer.echo(f"CLOUDINARY_URL={cloudinary_url(key, base)}")
    if upstream is not None:
        typer.echo(f"uploads of cloud {name} are passed on to {url_of(upstream)}")


def list_(*, data: str | None, as_json: bool) -> None:
    with opened(load(data=data)) as backend:
        clouds = asyncio.run(list_clouds(backend.services))
    if as_json:
        print_json(
            [
                {
                    "cloud": cloud.name,
                    "api_keys": [key.api_key for key in cloud.keys],
                    "upstream": cloud.upstream and url_of(cloud.upstream),
                }
                for cloud in clouds
            ]
        )
        return
    table = Table("cloud", "API keys", "upstream", box=None)
    for cloud in clouds:
        upstream = "-" if cloud.upstream is None else url_of(cloud.upstream)
        table.add_row(cloud.name, " ".join(key.api_key for key in cloud.keys), upstream)
    Console().print(table)


def relay(name: str, url: str | None, *, data: str | None) -> None:
    upstream = None if url is None else _upstream(url)
    with opened(load(data=data)) as backend:
        asyncio.run(set_upstream(backend.services, name, upstream))
    where = "stored here" if upstream is None else f"passed on to {url_of(upstream)}"
    typer.echo(f"uploads of cloud {name} are {where}")


def _upstream(url: str) -> Upstream:
    if url == _STDIN:
        return parse_upstream(sys.stdin.readline())
    upstream = parse_upstream(url)
    typer.secho(
        "uponce: the secret was on the command line, where other users of this machine can see it. With - it comes "
        "from the standard input.",
        fg="yellow",
        err=True,
    )
    return upstream
