"""`uponce sign`: make one signature, as fields, as a curl command or as one URL."""

import shlex
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlencode

import typer

from uponce.adapters.system import RandomIds, SystemClock
from uponce.app.sign import grant_id, mint
from uponce.cli.credentials import find_credentials
from uponce.cli.options import Data, Json, Kind, SigningKey, Url, parse_pairs, say
from uponce.core.signature import refuse_empty_limits


def run(
    parameters: list[str] = typer.Argument(
        None, metavar="NAME=VALUE", help="Upload parameters to sign, such as folder=cats."
    ),
    data: Data = None,
    url: Url = None,
    key: SigningKey = None,
    resource_type: Kind = "auto",
    form: Literal["fields", "curl", "url"] = typer.Option(
        "fields", "--as", help="fields (one a line), curl (a command), or url (everything in one URL)."
    ),
    as_json: Json = False,
) -> None:
    """Make one signature for an upload.

    A key in the data folder signs if --data or UPONCE_DATA names the folder. Otherwise the key of CLOUDINARY_URL signs
    if that variable is set, or else a key in ./uponce-data. The command does not ask the server.
    """
    credentials = find_credentials(data, key, url)
    params = parse_pairs(parameters or [])
    refuse_empty_limits(params)
    fields = mint(credentials.key, params, clock=SystemClock(), ids=RandomIds())
    address = upload_url(credentials.base, credentials.key.cloud, resource_type)
    text = {"fields": as_fields, "curl": as_curl, "url": as_one_url}[form](address, fields)
    say(text, {"id": grant_id(credentials.key, fields), "upload_url": address, "fields": fields}, as_json)


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
