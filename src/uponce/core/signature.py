"""Signing and verifying: the one place that hashes something together with an API secret."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from uponce.core.canonical import collect, refuse_ambiguous_escapes, string_to_sign
from uponce.core.errors import InvalidParameter, InvalidSignature
from uponce.core.freshness import parse_timestamp
from uponce.core.parameters import UNSIGNED, Call, read_parameters
from uponce.core.values import Algorithm

_HEX = {Algorithm.SHA1: re.compile(r"[0-9a-f]{40}"), Algorithm.SHA256: re.compile(r"[0-9a-f]{64}")}

# What an unknown API key is verified against, so that it costs what a known one costs.
DUMMY_SECRET = "no-such-key-has-this-secret"


@dataclass(frozen=True, slots=True)
class Verified:
    """The string-to-sign that the signature fits, and what it was made with."""

    string: str
    algorithm: Algorithm
    secret: str = field(repr=False)


def sign(string: str, secret: str, algorithm: Algorithm = Algorithm.SHA1) -> str:
    """Return the lower-case hex of H(string + secret)."""
    return hashlib.new(algorithm, (string + secret).encode(), usedforsecurity=False).hexdigest()


def verify(
    params: Mapping[str, str],
    signature: str,
    secrets: Sequence[str],
    *,
    allow_v1: bool = False,
    algorithms: Sequence[Algorithm] = tuple(Algorithm),
) -> Verified:
    """Return what signed the parameters. Raise InvalidSignature unless one of the secrets did.

    Every spelling is computed and compared in constant time, whatever the first ones gave. Version 1 is compared also
    where it is not allowed: the refusal then names the cause.
    """
    v2 = string_to_sign(params)
    v1 = string_to_sign(params, version=1)
    algorithm = next((a for a in algorithms if _HEX[a].fullmatch(signature)), None)
    if algorithm is None:
        raise _invalid(signature, v2)
    found: Verified | None = None
    for secret in secrets:
        for string in dict.fromkeys((v2, v1)):  # one, unless a value has an `&`
            same = hmac.compare_digest(sign(string, secret, algorithm), signature)
            found = Verified(string, algorithm, secret) if same and found is None else found
    if found is None:
        raise _invalid(signature, v2)
    if found.string != v2 and not allow_v1:
        raise _invalid(signature, v2, _OLD_SDK)
    return found


_OLD_SDK = (
    " The & in a value was signed in the unsafe way of old SDKs. Upgrade the SDK that signs, or sign with a key made "
    "with --allow-v1."
)


def _invalid(signature: str, string: str, hint: str = "") -> InvalidSignature:
    shown = re.sub(r"[^0-9A-Za-z]", "", signature)[:128]
    return InvalidSignature(f"Invalid Signature {shown}. String to sign - '{string}'.{hint}")


def mint_fields(
    params: Mapping[str, str],
    *,
    api_key: str,
    secret: str,
    now: float,
    nonce: str | None,
    algorithm: Algorithm = Algorithm.SHA256,
    call: Call = Call.UPLOAD,
) -> dict[str, str]:
    """Return the parameters with timestamp, nonce, signature and api_key: the fields to post.

    A timestamp or nonce in `params` is kept. Raise a ParameterRefused for what the server would refuse at the upload.
    """
    for name in params:
        if name in UNSIGNED:
            raise InvalidParameter(f"Parameter {name} is never signed. Omit it.")
    fields = collect(params.items())
    fields.setdefault("timestamp", str(int(now)))
    if nonce is not None:
        fields.setdefault("nonce", nonce)
    read_parameters(fields, call)
    refuse_ambiguous_escapes(fields)
    parse_timestamp(fields["timestamp"])
    return {**fields, "signature": sign(string_to_sign(fields), secret, algorithm), "api_key": api_key}


_TIMESTAMP_OCTETS = 5  # enough for every timestamp that freshness.py reads
KEY_OCTETS = 32


def grant_key(cloud: str, api_key: str, timestamp: int, string: str) -> bytes:
    """Return K, which names the grant in the ledger. One grant in any spelling has one K.

    SHA-256 over the cloud, the API key and the string-to-sign that verified, each preceded by its length in
    bytes as 8 big-endian octets; `dated` with the timestamp in that string. Never the received hex (SHA-1 and SHA-256
    of one grant are two spellings), the route or the resource type.
    """
    digest = hashlib.sha256()
    for part in (cloud, api_key, string):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return dated(timestamp, digest.digest())


def dated(timestamp: int, digest: bytes) -> bytes:
    """Return 32 octets: the timestamp in 5 octets, big-endian, then the first 27 of the digest.

    So keys are in the order of their time, and what a database keeps by them comes and goes at one end of its indexes
    (docs/adr/0023-dated-keys.md). Two grants with one key would have 216 bits of SHA-256 alike, and the worst of it:
    the second would be refused.
    """
    return (timestamp.to_bytes(_TIMESTAMP_OCTETS, "big") + digest)[:KEY_OCTETS]


def timestamp_of(key: bytes) -> int:
    """Return the timestamp in a grant key, in Unix seconds."""
    return int.from_bytes(key[:_TIMESTAMP_OCTETS], "big")


def sign_response(public_id: str, version: int, secret: str, algorithm: Algorithm = Algorithm.SHA1) -> str:
    """Return the `signature` of an answer. SDKs verify it over version 1 of the string, without escapes."""
    params = {"public_id": public_id, "version": str(version)}
    return sign(string_to_sign(params, version=1), secret, algorithm)


def sign_notification(body: bytes, timestamp: int, secret: str, algorithm: Algorithm) -> str:
    """Return the signature of a notification, as SDKs verify it: the hex hash of body, timestamp and secret."""
    return hashlib.new(algorithm, body + f"{timestamp}{secret}".encode(), usedforsecurity=False).hexdigest()


def verify_notification(body: bytes, timestamp: int, signature: str, secret: str) -> bool:
    """Return whether a notification was signed with this secret, by either algorithm. Nothing proves a lost secret."""
    expected = [sign_notification(body, timestamp, secret, algorithm) for algorithm in Algorithm]
    matches = [hmac.compare_digest(each.encode(), signature.encode()) for each in expected]
    return any(matches) and secret != ""


def sign_delivery(source: str, secret: str, *, long: bool = False, algorithm: Algorithm = Algorithm.SHA1) -> str:
    """Return the text between `s--` and `--` of a delivery URL.

    `source` is the escaped path exactly as in the URL: transformation and public_id with extension, without
    resource type, delivery type, signature and version. Short form: 8 characters; long form: 32 of SHA-256.
    """
    digest = hashlib.new(Algorithm.SHA256 if long else algorithm, (source + secret).encode(), usedforsecurity=False)
    return base64.urlsafe_b64encode(digest.digest()).decode()[: 32 if long else 8]


def verify_delivery(source: str, signature: str, secrets: Sequence[str]) -> bool:
    """Return whether a delivery signature, of either length and algorithm, fits one of the secrets."""
    expected = [
        candidate
        for secret in secrets
        for candidate in (
            sign_delivery(source, secret),
            sign_delivery(source, secret, algorithm=Algorithm.SHA256),
            sign_delivery(source, secret, long=True),
        )
    ]
    given = signature.encode()
    matches = [hmac.compare_digest(candidate.encode(), given) for candidate in expected]
    return any(matches)
