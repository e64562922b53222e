"""Decide whether signed parameters may upload: the signature, its time, its grant, what it asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from uponce.app.ports import Records
from uponce.app.services import Services
from uponce.core.errors import (
    InvalidParameter,
    InvalidSignature,
    MissingParameter,
    OriginMismatch,
    UnknownApiKey,
    UnknownCloud,
    UnsupportedParameter,
)
from uponce.core.freshness import check_fresh, check_watermark, keep_until, parse_timestamp
from uponce.core.parameters import Call, UploadSpec, check_route, read_parameters
from uponce.core.policy import Limits
from uponce.core.refusals import refusal_of
from uponce.core.signature import DUMMY_KEY, Signer, grant_key, refuse_ambiguous_escapes, verify
from uponce.core.upstream import read_relayed
from uponce.core.values import UNLIMITED_USES, ApiKey, Caller, Grant, GrantRecord, KeyUses, ResourceType

CREDENTIALS = ("api_key", "signature", "timestamp")


@dataclass(frozen=True, slots=True)
class Verified:
    """Parameters that a key of the cloud really signed, with no word yet on whether they are still good."""

    key: ApiKey
    grant: Grant
    spec: UploadSpec
    signer: Signer
    params: Mapping[str, str]


async def verify_signed(
    services: Services, cloud: str, params: Mapping[str, str], call: Call | None = Call.UPLOAD
) -> Verified:
    """Return whose grant collected parameters are. Forged or altered parameters raise and leave no trace.

    `call` None: of any call, where a signature is only looked up.
    """
    require_credentials(params, may_be_upload=call in (Call.UPLOAD, None))
    key = await services.database.find_key(params["api_key"])
    if not _is_of(key, cloud):
        raise _unknown(cloud, params, is_known=await services.database.has_cloud(cloud))
    return verified_by(services.limits, key, params, call)


def find_key_in(records: Records, cloud: str, params: Mapping[str, str]) -> ApiKey:
    """Return the key that the parameters name. Raise as `verify_signed` does. Blocks."""
    require_credentials(params, may_be_upload=True)
    key = records.find_key(params["api_key"])
    if not _is_of(key, cloud):
        raise _unknown(cloud, params, is_known=records.has_cloud(cloud))
    return key


def verified_by(limits: Limits, key: ApiKey, params: Mapping[str, str], call: Call | None = Call.UPLOAD) -> Verified:
    """Return what `verify_signed` returns, for parameters that name this key."""
    string, signer = verify(params, key)
    refuse_ambiguous_escapes(params)
    spec = read_parameters(params, call) if key.upstream is None else read_relayed(params)
    check_lifetime(spec, key)
    timestamp = parse_timestamp(params["timestamp"])
    grant = Grant(
        key=grant_key(key.cloud, key.api_key, timestamp, string),
        cloud=key.cloud,
        api_key=key.api_key,
        timestamp=timestamp,
        max_uses=spec.max_uses or (1 if key.uses is KeyUses.ONCE else UNLIMITED_USES),
        keep_until=keep_until(
            timestamp,
            window=key.window,
            skew=limits.skew,
            max_upload_seconds=limits.max_upload_seconds,
        ),
    )
    return Verified(key, grant, spec, signer, params)


async def authorise(
    services: Services,
    cloud: str,
    requested: ResourceType | None,
    params: Mapping[str, str],
    *,
    origin: str | None,
    caller: Caller,
    idempotency_key: str | None,
) -> Verified:
    """Return what `verify_signed` returns, for a grant that is fresh, unspent and sent from its signed origin.

    A repeat, whose answer is stored under its Idempotency-Key, makes nothing. So its grant may be spent, and its time
    may be over, for as long as the ledger remembers the grant. An upload that took its whole window needs that most.
    """
    verified = await verify_signed(services, cloud, params)
    check_route(params, cloud, requested)
    database, key = services.database, verified.grant.key
    # In this order: a use that the record tells of was committed together with its reply, so that one is found then.
    record = await database.find_grant(key)
    if record is not None and idempotency_key is not None and await database.find_reply(key, idempotency_key):
        check_watermark(verified.grant.timestamp, verified.key.watermark)
        check_origin(verified.spec, origin)
        return verified
    check_grant_fresh(services, verified)
    check_origin(verified.spec, origin)
    await _refuse_spent(services, verified.grant, record, caller)
    return verified


def check_grant_fresh(services: Services, verified: Verified) -> None:
    check_fresh(
        verified.grant.timestamp,
        now=services.clock.now(),
        window=verified.key.window,
        skew=services.limits.skew,
        watermark=verified.key.watermark,
        valid_for=verified.spec.valid_for,
    )


async def check_usable(services: Services, verified: Verified, origin: str | None, caller: Caller) -> None:
    """Raise if the ledger knows the grant as used up or revoked, or if the origin is not the signed one."""
    check_origin(verified.spec, origin)
    await refuse_spent(services, verified.grant, caller)


def check_lifetime(spec: UploadSpec, key: ApiKey) -> None:
    """InvalidParameter when the signature is to live longer than those of its key do."""
    if spec.valid_for is not None and spec.valid_for > key.window:
        raise InvalidParameter(
            f"Parameter valid_for is {spec.valid_for} seconds. The limit of this key is {key.window} seconds. Sign a "
            "smaller valid_for."
        )


def require_credentials(params: Mapping[str, str], *, may_be_upload: bool = False) -> None:
    """Raise if parameters that sign are missing. `may_be_upload`: all of them are, in an unsigned upload."""
    if may_be_upload and "upload_preset" in params and "signature" not in params:
        raise UnsupportedParameter("Unsigned uploads with an upload_preset are not supported. Sign the upload.")
    if may_be_upload and "api_key" not in params and "signature" not in params:
        raise MissingParameter(
            "Upload preset must be specified when using unsigned upload. Sign the upload: send api_key, timestamp "
            "and signature. HTTP Basic is for servers, not for web pages."
        )
    for name in CREDENTIALS:
        if name not in params:
            raise MissingParameter(f"Missing required parameter - {name}")


def _is_of(key: ApiKey | None, cloud: str) -> TypeGuard[ApiKey]:
    return key is not None and key.cloud == cloud and key.revoked_at is None


def _unknown(cloud: str, params: Mapping[str, str], *, is_known: bool) -> UnknownApiKey | UnknownCloud:
    _spend_as_long_as_a_known_key(params)
    if not is_known:
        return UnknownCloud(f"Invalid cloud_name {cloud}")
    return UnknownApiKey(f"Unknown API key {params['api_key'][:64]}")


def _spend_as_long_as_a_known_key(params: Mapping[str, str]) -> None:
    try:
        verify(params, DUMMY_KEY)
    except InvalidSignature:
        return


def check_origin(spec: UploadSpec, origin: str | None) -> None:
    if spec.origin is not None and origin not in spec.origin:
        raise OriginMismatch(
            f"This signature is for uploads from {', '.join(spec.origin)}. The request came from "
            f"{origin or 'no web origin'}. Upload from the signed origin, or sign another one."
        )


async def refuse_spent(services: Services, grant: Grant, caller: Caller) -> None:
    """Raise, and write to the audit, if the ledger knows the grant as used up or revoked."""
    await _refuse_spent(services, grant, await services.database.find_grant(grant.key), caller)


async def _refuse_spent(services: Services, grant: Grant, record: GrantRecord | None, caller: Caller) -> None:
    refusal = record and refusal_of(record, grant.max_uses)
    if refusal:
        await record_refusal(services, grant, refusal.code, caller)
        raise refusal


async def record_refusal(services: Services, grant: Grant, code: str, caller: Caller) -> None:
    """Write the refusal of a genuine signature to the audit, in its turn; durable when this returns."""
    async with services.attempts.refusing(grant):
        await services.database.record_refusal(grant, code, caller, services.limits.refusals_per_grant)
