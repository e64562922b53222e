"""The signature endpoints, behind HTTP Basic: status of one, list, revoke, sign."""

from collections.abc import Mapping

from uponce.app.authenticate import authenticate
from uponce.app.manage_signatures import (
    HISTORY_LIMIT,
    SignatureState,
    list_signatures,
    revoke_signature,
    show_signature,
)
from uponce.app.services import Services
from uponce.app.sign import grant_id, mint
from uponce.core.errors import NotFound
from uponce.core.parameters import choice, positive, unknown
from uponce.core.signature import bare_name, collect_known, refuse_empty_limits
from uponce.core.values import UNLIMITED_USES, Algorithm, ApiKey, AuditRecord, GrantRecord, GrantStatus
from uponce.web.cloudinary.answers import Json, present
from uponce.web.cloudinary.forms import body_fields
from uponce.web.request import Request
from uponce.web.response import Response, json_response

Parameters = Mapping[str, str]

_MAX_PAGE = 500
_NAMES = ("id", "status", "max_results", "next_cursor")


async def signatures(services: Services, request: Request) -> Response:
    """Serve `/v1_1/<cloud>/signatures[/<action or id>]` to servers that have an API key and its secret.

    GET  …/signatures          a page of the ledger     ?status= max_results= next_cursor=
    GET  …/signatures/<id>     one signature in the ledger, with a page of its history     ?max_results= next_cursor=
    POST …/signatures/status   the same by its signed fields, also if no request has used it
    POST …/signatures/revoke   by `id` alone, or by its signed fields
    POST …/signatures/sign     mint a signature over the posted parameters
    """
    limits = services.limits
    key = await authenticate(services, request.params["cloud"], *request.head.server_credentials())
    sent = [*request.query(limits), *await body_fields(request, limits)]
    fields, action = collect_known(sent, *_NAMES), request.params.get("action", "")
    if request.method == "GET" and action:
        _refuse_more(fields, "max_results", "next_cursor")
        answer = describe_state(await show_signature(services, key, action, **_taken(fields)))
    elif request.method == "GET":
        answer = await _page(services, key, fields)
    elif action in _ACTIONS:
        if action == "sign":
            refuse_empty_limits({bare_name(name): value for name, value in sent})
        answer = await _ACTIONS[action](services, key, fields, request)
    else:
        raise NotFound(
            f"There is no action {action[:40]!r}. POST to …/signatures/status, …/signatures/revoke or …/sign."
        )
    return json_response(answer)


def _refuse_more(fields: Parameters, *names: str) -> None:
    """Raise UnknownParameter for a field of another name: it may be meant as a filter, or as a condition."""
    for name in fields:
        if name not in names:
            raise unknown(name)


async def _page(services: Services, key: ApiKey, fields: Parameters) -> Json:
    _refuse_more(fields, "status", "max_results", "next_cursor")
    page = await list_signatures(
        services,
        key,
        status=choice("status", fields["status"], choices=GrantStatus) if "status" in fields else None,
        limit=positive("max_results", fields.get("max_results", "50"), limit=_MAX_PAGE),
        cursor=fields.get("next_cursor"),
    )
    return present(signatures=[describe_record(record) for record in page.items], next_cursor=page.next_cursor)


async def _show(services: Services, key: ApiKey, fields: Parameters, _: Request) -> Json:
    signed = dict(fields)
    page = _taken(signed)
    return describe_state(await show_signature(services, key, signed, **page))


def _taken(fields: dict[str, str]) -> dict[str, int]:
    """Remove the fields that name a page of the history. Return which rows it has."""
    limit, cursor = fields.pop("max_results", str(HISTORY_LIMIT)), fields.pop("next_cursor", None)
    page = {"limit": positive("max_results", limit, limit=HISTORY_LIMIT)}
    return page if cursor is None else page | {"before": positive("next_cursor", cursor, limit=10**18)}


async def _revoke(services: Services, key: ApiKey, fields: Parameters, request: Request) -> Json:
    if "id" in fields:
        _refuse_more(fields, "id")
    named = fields.get("id", fields)
    return describe_record(await revoke_signature(services, key, named, request.caller))


async def _sign(services: Services, key: ApiKey, fields: Parameters, request: Request) -> Json:
    url, options = f"{request.base_url()}/v1_1/{key.cloud}/auto/upload", dict(fields)
    named = options.pop("signature_algorithm", Algorithm.SHA256)
    algorithm = choice("signature_algorithm", named, choices=Algorithm)
    signed = mint(key, options, clock=services.clock, ids=services.ids, algorithm=algorithm)
    return {"id": grant_id(key, signed), "upload_url": url, "fields": signed}


_ACTIONS = {"status": _show, "revoke": _revoke, "sign": _sign}


def describe_record(record: GrantRecord) -> Json:
    """Return a ledger row as JSON. `max_uses` is null for an unlimited signature; unknown facts are omitted."""
    grant = record.grant
    facts = present(
        id=grant.key.hex(),
        status=record.status,
        api_key=grant.api_key,
        timestamp=grant.timestamp,
        uses=record.uses,
        used_at=record.spent_at,
        revoked_at=record.revoked_at,
    )
    return facts | {"max_uses": None if grant.max_uses >= UNLIMITED_USES else grant.max_uses}


def describe_state(state: SignatureState) -> Json:
    """Return a signature with a page of its history as JSON. `next_cursor` leads to the rows before it."""
    history = [_audit(line) for line in state.history]
    cursor = None if state.earlier is None else str(state.earlier)
    return describe_record(state.record) | present(history=history, expires_at=state.expires_at, next_cursor=cursor)


def _audit(line: AuditRecord) -> Json:
    fields = {
        "at": line.at,
        "event": line.event,
        "code": line.code,
        "asset_id": line.asset_id,
        "public_id": line.public_id,
        "address": line.caller.address,
        "request_id": line.caller.request_id,
    }
    shown = {name: value for name, value in fields.items() if value != ""}
    return shown | {"count": line.count} if line.count > 1 else shown
