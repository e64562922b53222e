"""Decide whether signed parameters may upload: the signature, its time, its grant, and the parameters themselves."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

from uponce.app.attempts import network_of
from uponce.app.ports import Records
from uponce.app.services import Services
from uponce.core import errors
from uponce.core.parameters import Call, UploadSpec, narrowed, parse_timestamp, read_parameters
from uponce.core.policy import Limits
from uponce.core.refusals import refusal_of, still_pending
from uponce.core.signature import (
    DUMMY_KEY,
    Signer,
    check_fresh,
    check_watermark,
    grant_key,
    keep_until,
    refuse_ambiguous_escapes,
    verify,
    works_in,
)
from uponce.core.upstream import read_relayed
from uponce.core.values import (
    UNLIMITED_USES,
    ApiKey,
    Caller,
    Grant,
    GrantRecord,
    KeyUses,
    Payer,
    ResourceType,
    Upstream,
)

CREDENTIALS = ("api_key", "signature", "timestamp")


@dataclass(frozen=True, slots=True)
class Verified:
    """Parameters that a key of the cloud signed. Whether they may still be used is not checked yet.

    `repeats`: their time was not checked, since their Idempotency-Key has a stored answer.
    """

    key: ApiKey
    grant: Grant
    spec: UploadSpec
    signer: Signer
    params: Mapping[str, str]
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """What a request says about an upload besides its body: the address, the fields of the query, and the sender.

    `requested` is the resource type in the address; None stands for `auto`. `origin` is the web page's, if a browser
    sent the request. `idempotency_key` is the client's name for the upload: a repeat with this name returns a lost
    answer. `credentials` are an API key and its secret by HTTP Basic, for fields without a signature. `scripted`: a
    program reads the answer. Otherwise a browser may show the answer. `length` is the number of bytes in the
    body, or None if the request does not say it. `bare`: the body is the file itself, without a form around it.
    """

    cloud: str
    requested: ResourceType | None
    fields: tuple[tuple[str, str], ...]
    origin: str | None
    caller: Caller
    idempotency_key: str | None = None
    credentials: tuple[str, str] | None = None
    scripted: bool = False
    length: int | None = None
    bare: bool = False

    def narrowed(self, params: Mapping[str, str]) -> "UploadRequest":
        """Return the request with the resource type that the parameters name, if its route is `auto`."""
        requested = narrowed(self.requested, params)
        return self if requested is self.requested else replace(self, requested=requested)


@dataclass(frozen=True, slots=True)
class Admitted:
    """An upload whose grant was good, and what the file was sent as. `params` are those that the client signed.

    `requested` None is auto. `series_id` is that of an upload in parts, and `grant` is one of those that it spends.
    `upstream` is None if uponce stores the file.
    """

    grant: Grant
    spec: UploadSpec
    params: Mapping[str, str]
    requested: ResourceType | None
    filename: str | None
    caller: Caller
    idempotency_key: str | None = None
    series_id: str | None = None
    upstream: Upstream | None = None

    @staticmethod
    def of(request: UploadRequest, verified: Verified, filename: str | None) -> "Admitted":
        """Return the upload of a whole file."""
        return Admitted(
            verified.grant,
            verified.spec,
            verified.params,
            request.requested,
            filename,
            request.caller,
            request.idempotency_key,
            upstream=verified.key.upstream,
        )

    @property
    def payer(self) -> Payer:
        return Payer.of(self.grant, network_of(self.caller.address))


async def verify_signed(
    services: Services, cloud: str, params: Mapping[str, str], call: Call | None = Call.UPLOAD
) -> Verified:
    """Return the grant, the key and the meaning of collected parameters.

    Forged or altered ones raise and leave no trace. To look a signature up, `call` None accepts those of every call.
    """
    require_credentials(params, may_be_upload=call in (Call.UPLOAD, None))
    key = await services.database.find_key(params["api_key"])
    if not works_in(key, cloud):
        raise _unknown(cloud, params, is_known=await services.database.has_cloud(cloud))
    return verified_by(services.limits, key, params, call)


def find_key_in(records: Records, cloud: str, params: Mapping[str, str]) -> ApiKey:
    """Return the key that the parameters name. Raise as `verify_signed` does. Blocks."""
    require_credentials(params, may_be_upload=True)
    key = records.find_key(params["api_key"])
    if not works_in(key, cloud):
        raise _unknown(cloud, params, is_known=records.has_cloud(cloud))
    return key


def verified_by(limits: Limits, key: ApiKey, params: Mapping[str, str], call: Call | None = Call.UPLOAD) -> Verified:
    """Return what `verify_signed` returns, for parameters that name this key."""
    string, signer = verify(params, key)
    refuse_ambiguous_escapes(params)
    spec = read_for(key.upstream, params, call)
    check_lifetime(spec, key)
    timestamp = parse_timestamp(params["timestamp"])
    grant = Grant(
        key=grant_key(key.cloud, key.api_key, timestamp, string),
        cloud=key.cloud,
        api_key=key.api_key,
        timestamp=timestamp,
        max_uses=spec.max_uses or (1 if key.uses is KeyUses.ONCE else UNLIMITED_USES),
        keep_until=keep_until(
            timestamp, window=key.window, skew=limits.skew, max_upload_seconds=limits.max_upload_seconds
        ),
    )
    return Verified(key, grant, spec, signer, params)


def read_for(upstream: Upstream | None, params: Mapping[str, str], call: Call | None = Call.UPLOAD) -> UploadSpec:
    """Return what parameters ask of a cloud. An upstream also gets those that uponce does not know."""
    return read_parameters(params, call) if upstream is None else read_relayed(params)


async def authorise(services: Services, request: UploadRequest, params: Mapping[str, str]) -> Verified:
    """Return what `verify_signed` returns, for a grant that is fresh, unspent and sent from its signed origin.

    A repeat with a stored answer under its Idempotency-Key creates nothing. So its grant may be spent, and its time may
    be over, as long as the ledger remembers the grant. An upload that took its whole window needs such a repeat most.
    """
    verified = await verify_signed(services, request.cloud, params)
    check_route(params, request.cloud, request.requested)
    database, key = services.database, verified.grant.key
    # In this order: a use that the record shows was committed together with its reply, so the second query finds it.
    record = await database.find_grant(key)
    named = request.idempotency_key
    if record is not None and named is not None and await database.find_reply(key, named):
        check_watermark(verified.grant.timestamp, verified.key.watermark)
        check_origin(verified.spec, request.origin)
        return replace(verified, repeats=True)
    await check_in_time(services, verified, request, record)
    check_origin(verified.spec, request.origin)
    await _refuse_spent(services, verified.grant, record, request.caller)
    return verified


async def check_in_time(
    services: Services, verified: Verified, request: UploadRequest, record: GrantRecord | None = None
) -> None:
    """Raise StaleRequest or FutureTimestamp unless the grant is fresh.

    A stale grant may be pending: its upload began in time, and a repeat gets its answer once the outcome is known. Then
    raise OutcomeUnknown, unless other uses are left and no Idempotency-Key shows that it may be a repeat, or what its
    origin and its uses refuse. `record` is what the ledger knew when its answers were looked up.
    """
    try:
        check_grant_fresh(services, verified)
    except errors.StaleRequest:
        record = record or await services.database.find_grant(verified.grant.key)
        if record is not None and record.pending:
            check_origin(verified.spec, request.origin)
            await _refuse_spent(services, verified.grant, record, request.caller)
            if request.idempotency_key is not None:
                raise still_pending() from None
        raise


def check_route(params: Mapping[str, str], cloud: str, requested: ResourceType | None) -> None:
    """Raise InvalidParameter if the unsigned `cloud_name` or `resource_type` contradicts the URL."""
    route = {"cloud_name": cloud, "resource_type": str(requested or "auto")}
    for name, expected in route.items():
        if params.get(name, expected) != expected:
            raise errors.InvalidParameter(
                f"Parameter {name} is '{errors.shown(params[name])}', but the URL says {expected}. Send the same, or "
                "omit it."
            )


def check_grant_fresh(services: Services, verified: Verified) -> None:
    check_fresh(
        verified.grant.timestamp,
        now=services.clock.now(),
        window=verified.key.window,
        skew=services.limits.skew,
        watermark=verified.key.watermark,
        valid_for=verified.spec.valid_for,
    )


async def check_usable(services: Services, verified: Verified, request: UploadRequest) -> None:
    """Raise if the ledger knows the grant as used up or revoked, or if the origin is not the signed one."""
    check_origin(verified.spec, request.origin)
    await refuse_spent(services, verified.grant, request.caller)


def check_lifetime(spec: UploadSpec, key: ApiKey) -> None:
    """Raise InvalidParameter if the signature asks for a longer life than the window of its key."""
    if spec.valid_for is not None and spec.valid_for > key.window:
        raise errors.InvalidParameter(
            f"Parameter valid_for is {spec.valid_for} seconds. The limit of this key is {key.window} seconds. Sign a "
            "smaller valid_for."
        )


def require_credentials(params: Mapping[str, str], *, may_be_upload: bool = False) -> None:
    """Raise if parameters that sign are missing. `may_be_upload`: the error says how to sign an upload."""
    if may_be_upload and "upload_preset" in params and "signature" not in params:
        raise errors.UnsupportedParameter("Unsigned uploads with an upload_preset are not supported. Sign the upload.")
    if may_be_upload and "api_key" not in params and "signature" not in params:
        raise errors.MissingParameter(
            "Upload preset must be specified when using unsigned upload. Sign the upload: send api_key, timestamp "
            "and signature. HTTP Basic is for servers, not for web pages."
        )
    for name in CREDENTIALS:
        if name not in params:
            raise errors.MissingParameter(f"Missing required parameter - {name}")


def _unknown(cloud: str, params: Mapping[str, str], *, is_known: bool) -> errors.UnknownApiKey | errors.UnknownCloud:
    with suppress(errors.InvalidSignature):
        verify(params, DUMMY_KEY)  # a known key takes as long
    if not is_known:
        return errors.UnknownCloud(f"Invalid cloud_name {errors.shown(cloud)}")
    return errors.UnknownApiKey(f"Unknown API key {params['api_key'][:64]}")


def check_origin(spec: UploadSpec, origin: str | None) -> None:
    if spec.origin is not None and origin not in spec.origin:
        sender = errors.printable(origin[:300]) if origin else "no web origin"
        raise errors.OriginMismatch(
            f"This signature is for uploads from {', '.join(spec.origin)}. The request came from {sender}. Upload from "
            "the signed origin, or sign another one."
        )


def check_scripted(spec: UploadSpec, request: UploadRequest) -> None:
    """Raise UnsupportedParameter for a `callback` in a form that a browser posts: it would show the answer."""
    if spec.callback is not None and not request.scripted:
        raise errors.UnsupportedParameter(
            "Parameter callback is not supported by this server yet for a form that a browser posts without a "
            "script. Upload by XMLHttpRequest or fetch, or sign without it."
        )


async def refuse_spent(services: Services, grant: Grant, caller: Caller) -> None:
    """Raise if the ledger knows the grant as used up or revoked, and write the refusal to the audit."""
    await _refuse_spent(services, grant, await services.database.find_grant(grant.key), caller)


async def _refuse_spent(services: Services, grant: Grant, record: GrantRecord | None, caller: Caller) -> None:
    refusal = record and refusal_of(record, grant.max_uses)
    if refusal:
        await record_refusal(services, grant, refusal.code, caller)
        raise refusal


async def record_refusal(services: Services, grant: Grant, code: str, caller: Caller) -> None:
    """Write the refusal of a genuine signature to the audit, in its turn. It is durable when this returns."""
    async with services.attempts.refusing(grant):
        await services.database.record_refusal(grant, code, caller, services.limits.refusals_per_grant)


@asynccontextmanager
async def refusals_recorded(
    services: Services,
    grant: Grant,
    caller: Caller,
    kinds: tuple[type[errors.GrantRefused], ...] = (errors.GrantRefused,),
) -> AsyncIterator[None]:
    """Write a refusal of the grant that is raised inside to the audit, if it is of these kinds."""
    try:
        yield
    except kinds as refusal:
        await record_refusal(services, grant, refusal.code, caller)
        raise
