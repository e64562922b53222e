"""Mint a signature: for a backend without an SDK, and for the command line without a server."""

from collections.abc import Mapping
from functools import partial

from uponce.app.authenticate import authenticate
from uponce.app.authorise import check_lifetime, check_route, read_for
from uponce.app.ports import Clock, Ids
from uponce.app.services import Services
from uponce.core.errors import InvalidParameter
from uponce.core.parameters import UNSIGNED, Call, parse_timestamp
from uponce.core.signature import grant_key, mint_fields, string_to_sign
from uponce.core.values import Algorithm, ApiKey, KeyUses, ResourceType

NONCE_LENGTH = 20


def mint(
    key: ApiKey,
    params: Mapping[str, str],
    *,
    clock: Clock,
    ids: Ids,
    algorithm: Algorithm = Algorithm.SHA256,
    call: Call = Call.UPLOAD,
) -> dict[str, str]:
    """Return the parameters with timestamp, nonce, signature and api_key: the fields to post.

    A timestamp in `params` is kept. A signature whose uses are counted gets a nonce, so two of one second differ. Wrong
    parameters are refused here instead of at the upload.
    """
    read = partial(read_for, key.upstream, call=call)
    is_counted = key.uses is KeyUses.ONCE or "max_uses" in params
    fields = mint_fields(
        params,
        api_key=key.api_key,
        secret=key.secrets[0],
        now=clock.now(),
        nonce=ids.base36(NONCE_LENGTH) if is_counted else None,
        algorithm=algorithm if algorithm in key.algorithms else key.algorithms[0],
        read=read,
    )
    check_lifetime(read(fields), key)
    return fields


async def sign_for(
    services: Services,
    cloud: str,
    requested: ResourceType | None,
    credentials: tuple[str, str],
    params: Mapping[str, str],
    call: Call = Call.UPLOAD,
) -> dict[str, str]:
    """Return the fields, signed for a caller that knows the key's secret. Raise BadCredentials for any other caller.

    So the call has a signature of its key, and is dated, fenced and audited as any other.
    """
    check_route(params, cloud, requested)
    key = await authenticate(services, cloud, *credentials)
    if params.get("api_key", key.api_key) != key.api_key:
        raise InvalidParameter(f"Parameter api_key is not the API key of the credentials, {key.api_key}. Omit it.")
    signed = {name: value for name, value in params.items() if name not in UNSIGNED}
    return mint(key, signed, clock=services.clock, ids=services.ids, call=call)


def grant_id(key: ApiKey, fields: Mapping[str, str]) -> str:
    """Return the id of minted fields for status and revoke: the grant key in hex."""
    timestamp = parse_timestamp(fields["timestamp"])
    return grant_key(key.cloud, key.api_key, timestamp, string_to_sign(fields)).hex()
