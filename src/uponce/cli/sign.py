"""`uponce sign`: make one signature, as fields, as a curl command or as one URL."""

import shlex
from collections.abc import Mapping
from urllib.parse import urlencode

import typer

from uponce.adapters.clock import RandomIds, SystemClock
from uponce.app.sign import grant_id, mint
from uponce.cli.credentials import find_credentials
from uponce.cli.options import parse_pairs, print_json


def run(
    parameters: list[str], *, data: str | None, url: str | None, key: str | None, resource_type: str, form: str
) -> None:
    credentials = find_credentials(data, key, url)
    fields = mint(credentials.key, parse_pairs(parameters), clock=SystemClock(), ids=RandomIds())
    address = upload_url(credentials.base, credentials.key.cloud, resource_type)
    if form == "json":
        print_json({"id": grant_id(credentials.key, fields), "upload_url": address, "fields": fields})
        return
    typer.echo({"fields": as_fields, "curl": as_curl, "url": as_one_url}[form](address, fields))


def upload_url(base: str, cloud: str, resource_type: str) -> str:
    return f"{base}/v1_1/{cloud}/{resource_type}/upload"


def as_fields(url: str, fields: Mapping[str, str]) -> str:
    return "\n".join([url, *(f"{name}={value}" for name, value in fields.items())])


def as_curl(url: str, fields: Mapping[str, str]) -> str:
    words = [f"--form-string {shlex.quote(f'{name}={value}')}" for name, value in fields.items()]
    return " \\\n  ".join(["curl", *words, "-F file=@FILE", shlex.quote(url)])


def as_one_url(url: str, fields: Mapping[str, str]) -> str:
    """Return the whole grant in one URL, for `curl -T FILE "$URL"`."""
    return f"{url}?{urlencode(fields)}"
