"""The signature endpoints, behind HTTP Basic: status of one, list, revoke, sign."""

import re
from collections.abc import Mapping
from typing import Any

from uponce.app.authenticate import authenticate
from uponce.app.browse import Sighting, list_signatures, show_known, show_signed
from uponce.app.revoke import revoke_known, revoke_signed
from uponce.app.services import Services
from uponce.app.sign import grant_id, mint
from uponce.core.canonical import collect_known
from uponce.core.errors import BadCredentials, InvalidParameter, NotFound
from uponce.core.values import UNLIMITED_USES, Algorithm, ApiKey, AuditRecord, GrantRecord, GrantStatus
from uponce.web.body import Body, Receive, Scope, Send
from uponce.web.forms import parse_query
from uponce.web.request import Head, base_url, read_head
from uponce.web.respond import Answer, answer_json
from uponce.web.small import basic_credentials, body_fields

METHODS = ("GET", "POST")
_MAX_PAGE = 500
_NAMES = ("id", "status", "max_results", "next_cursor")


class SignaturesEndpoint:
    """`/v1_1/<cloud>/signatures[/<action or id>]`

    GET  …/signatures          a page of the ledger     ?status= max_results= next_cursor=
    GET  …/signatures/<id>     one signature the ledger knows, with its history
    POST …/signatures/status   the same, by its signed fields, also when it was never used
    POST …/signatures/revoke   by `id`, or by its signed fields
    POST …/signatures/sign     mint one over the posted parameters
    """

    def __init__(self, services: Services, public_url: str | None) -> None:
        self._services = services
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def work(body: Body) -> Answer:
            return Answer(await self._answer(scope, body))

        await answer_json(scope, receive, send, self._services.limits.idle_seconds, work)

    async def _answer(self, scope: Scope, body: Body) -> dict[str, Any]:
        head = read_head(scope)
        if head.origin is not None:  # a browser adds credentials that it remembers to the forms of any site
            raise BadCredentials("This request comes from a web page. Call this address from a server.")
        api_key, secret = basic_credentials(head.get("authorization"))
        key = await authenticate(self._services, scope["path_params"]["cloud"], api_key, secret)
        action, limits = scope["path_params"].get("action", ""), self._services.limits
        sent = [*parse_query(scope["query_string"], limits), *await body_fields(head, body, limits)]
        fields = collect_known(sent, *_NAMES)
        if scope["method"] == "GET":
            return await (self._one(key, action) if action else self._page(key, fields))
        if action == "status":
            return describe_sighting(await show_signed(self._services, key, fields))
        if action == "revoke":
            return await self._revoke(key, fields, head)
        if action == "sign":
            return self._sign(key, fields, base_url(scope, head, self._public_url))
        raise NotFound(
            f"There is no action {action[:40]!r}. POST to …/signatures/status, …/signatures/revoke or …/sign."
        )

    async def _one(self, key: ApiKey, grant: str) -> dict[str, Any]:
        return describe_sighting(await show_known(self._services, key, grant))

    async def _page(self, key: ApiKey, fields: Mapping[str, str]) -> dict[str, Any]:
        page = await list_signatures(
            self._services,
            key,
            status=_status(fields.get("status")),
            limit=_limit(fields.get("max_results", "50")),
            cursor=fields.get("next_cursor"),
        )
        answer: dict[str, Any] = {"signatures": [describe_record(record) for record in page.items]}
        return answer if page.next_cursor is None else answer | {"next_cursor": page.next_cursor}

    async def _revoke(self, key: ApiKey, fields: Mapping[str, str], head: Head) -> dict[str, Any]:
        if "id" in fields:
            return describe_record(await revoke_known(self._services, key, fields["id"], head.caller))
        return describe_record(await revoke_signed(self._services, key, fields, head.caller))

    def _sign(self, key: ApiKey, fields: Mapping[str, str], base: str) -> dict[str, Any]:
        options = dict(fields)
        algorithm = _algorithm(options.pop("signature_algorithm", Algorithm.SHA256))
        signed = mint(key, options, clock=self._services.clock, ids=self._services.ids, algorithm=algorithm)
        url = f"{base}/v1_1/{key.cloud}/auto/upload"
        return {"id": grant_id(key, signed), "upload_url": url, "fields": signed}


def _status(text: str | None) -> GrantStatus | None:
    try:
        return None if text is None else GrantStatus(text)
    except ValueError:
        raise InvalidParameter(f"Parameter status is {str(text)[:40]!r}. Send used, unused or revoked.") from None


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII) or not 1 <= int(text) <= _MAX_PAGE:
        raise InvalidParameter(f"Parameter max_results is {text[:40]!r}. Send a whole number from 1 to {_MAX_PAGE}.")
    return int(text)


def _algorithm(text: str) -> Algorithm:
    try:
        return Algorithm(text)
    except ValueError:
        raise InvalidParameter(f"Parameter signature_algorithm is {text[:40]!r}. Send sha1 or sha256.") from None


def describe_record(record: GrantRecord) -> dict[str, Any]:
    """Return a ledger row as JSON. `max_uses` is null for an unlimited signature; what is not known is omitted."""
    grant = record.grant
    fields = {
        "id": grant.key.hex(),
        "status": record.status,
        "api_key": grant.api_key,
        "timestamp": grant.timestamp,
        "uses": record.uses,
        "used_at": record.spent_at,
        "revoked_at": record.revoked_at,
    }
    limit = None if grant.max_uses >= UNLIMITED_USES else grant.max_uses
    return {name: value for name, value in fields.items() if value is not None} | {"max_uses": limit}


def describe_sighting(sighting: Sighting) -> dict[str, Any]:
    """A signature with its history as JSON."""
    answer = describe_record(sighting.record) | {"history": [_audit(line) for line in sighting.history]}
    return answer if sighting.expires_at is None else answer | {"expires_at": sighting.expires_at}


def _audit(line: AuditRecord) -> dict[str, Any]:
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
