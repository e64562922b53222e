"""`uponce signatures`: show, list and revoke signatures. It works beside a running server."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import typer

from uponce.app.manage_signatures import (
    HISTORY_LIMIT,
    Named,
    SignatureState,
    list_signatures,
    revoke_signature,
    show_signature,
)
from uponce.app.ports import Page
from uponce.app.services import Services
from uponce.cli.options import Data, Json, parse_pairs, say, say_table
from uponce.cli.store import cloud_of, of_server, on_store
from uponce.config import load
from uponce.core.errors import NotFound
from uponce.core.signature import utc
from uponce.core.values import ApiKey, Caller, GrantRecord, GrantStatus, KeyScope, KeyUses
from uponce.web.cloudinary.signatures import describe_record, describe_state

_CALLER = Caller(address="command line", request_id="")

app = typer.Typer(no_args_is_help=True, add_completion=False)

Which = typer.Argument(
    metavar="SIGNATURE", help="Its id, the URL of `uponce sign --as url`, or all signed fields as NAME=VALUE."
)


@app.command()
def show(
    signature: list[str] = Which,
    data: Data = None,
    limit: int = typer.Option(HISTORY_LIMIT, min=1, max=10**6, help="How many rows of the history, the newest ones."),
    as_json: Json = False,
) -> None:
    """Show the status and the history of one signature."""
    named = _read(signature)

    async def look(services: Services) -> SignatureState:
        return await show_signature(services, await _operator_of(services, named), named, limit)

    answer = describe_state(on_store(load(data=data), look))
    say("\n".join(_lines(answer, limit)), answer, as_json)


def _lines(answer: Mapping[str, Any], limit: int) -> Iterator[str]:
    for name, value in answer.items():
        if name not in ("history", "next_cursor"):
            yield f"{name:<12}{'unlimited' if value is None else value}"
    if "next_cursor" in answer:
        yield f"Earlier rows of the history are not shown. For more rows, set --limit above {limit}."
    for line in answer["history"]:
        what = "  ".join(line[name] for name in ("public_id", "code") if name in line)
        times = f"  {line['count']} times, the last one shown" if "count" in line else ""
        yield f"{utc(line['at'])}  {line['event']:<8} {what}  {line.get('address', '')}{times}"


@app.command("list")
def list_(
    data: Data = None,
    cloud: str | None = typer.Option(
        None, help="Cloud to list. [UPONCE_CLOUD, the server's cloud, media]", show_default=False
    ),
    status: Literal["unused", "used", "pending", "revoked"] | None = typer.Option(
        None, help="Show only used, unused, pending or revoked signatures."
    ),
    limit: int = typer.Option(50, min=1, max=500, help="How many to show, newest first."),
    as_json: Json = False,
) -> None:
    """List the newest signatures in the ledger. A signature that no upload has used yet is not there."""
    settings = load(data=data)
    wanted = None if status is None else GrantStatus(status)

    async def look(services: Services) -> Page[GrantRecord]:
        owner = _operator(await cloud_of(services, settings, cloud))
        await _check_cloud(services, owner.cloud)
        return await list_signatures(services, owner, status=wanted, limit=limit, cursor=None)

    page = on_store(settings, look)
    columns, value = ("id", "status", "signed at", "used at", "uses"), list(map(describe_record, page.items))
    say_table(columns, map(_row, page.items), value, as_json, whole=True)


def _row(record: GrantRecord) -> tuple[str, ...]:
    used_at = utc(record.spent_at) if record.spent_at is not None else ""
    return record.grant.key.hex(), record.status, utc(record.grant.timestamp), used_at, str(record.uses)


@app.command()
def revoke(signature: list[str] = Which, data: Data = None, as_json: Json = False) -> None:
    """Refuse one unused signature from now on, also if no request has used it yet. Exit code 1 if it is used."""
    named, settings = _read(signature), load(data=data)

    async def work(services: Services) -> GrantRecord:
        limits = (await of_server(services, settings)).limits  # they say until when the ledger keeps the row
        services = replace(services, limits=limits)
        return await revoke_signature(services, await _operator_of(services, named), named, _CALLER)

    record = on_store(settings, work)
    say(f"{record.status} {record.grant.key.hex()}", describe_record(record), as_json)
    if record.status is not GrantStatus.REVOKED:
        raise typer.Exit(1)


def _read(words: list[str]) -> Named:
    if len(words) == 1 and re.fullmatch(r"[0-9a-f]{64}", words[0]):
        return words[0]
    if len(words) == 1 and "://" in words[0]:
        try:
            return dict(parse_qsl(urlsplit(words[0]).query))
        except ValueError:  # it could be a live signature, so the error quotes nothing
            raise typer.BadParameter("The URL cannot be read. Copy the URL of `uponce sign --as url`.") from None
    if len(words) == 1 and "=" not in words[0]:
        raise typer.BadParameter(
            "This is no id: an id has 64 digits, 0-9 and a-f. `uponce signatures list` shows each id whole."
        )
    return parse_pairs(words)


def _operator(cloud: str) -> ApiKey:
    return ApiKey(api_key="", cloud=cloud, secrets=(), uses=KeyUses.ONCE, scope=KeyScope.ALL, window=0)


async def _check_cloud(services: Services, cloud: str) -> None:
    """Raise NotFound if only other clouds have keys: an empty list would look as if nothing had been signed."""
    clouds = sorted({key.cloud for key in await services.database.list_keys()})
    if clouds and cloud not in clouds:
        raise NotFound(f"No API key belongs to cloud {cloud}. Name a cloud with --cloud: {', '.join(clouds)}.")


async def _operator_of(services: Services, named: Named) -> ApiKey:
    if isinstance(named, str):
        record = await services.database.find_grant(bytes.fromhex(named), forgotten=True)
        return _operator(record.grant.cloud if record else "")
    key = await services.database.find_key(named.get("api_key", ""))
    if key is None:
        raise NotFound("There is no such API key here. Give all signed fields, with api_key and signature.")
    return _operator(key.cloud)
