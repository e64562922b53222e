"""Signing and verifying: the one place that hashes something together with an API secret."""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from uponce.core.canonical import string_to_sign
from uponce.core.errors import InvalidSignature
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
    """Lower-case hex of H(string + secret)."""
    return hashlib.new(algorithm, (string + secret).encode(), usedforsecurity=False).hexdigest()


def verify(
    params: Mapping[str, str],
    signature: str,
    secrets: Sequence[str],
    *,
    allow_v1: bool = False,
    algorithms: Sequence[Algorithm] = tuple(Algorithm),
) -> Verified:
    """The parameters were signed with one of the secrets, or InvalidSignature.

    Every permitted spelling is computed and compared in constant time, whatever the first ones gave.
    """
    v2 = string_to_sign(params)
    strings = [v2, string_to_sign(params, version=1)] if allow_v1 else [v2]
    algorithm = next((a for a in algorithms if _HEX[a].fullmatch(signature)), None)
    if algorithm is None:
        raise _invalid(signature, v2)
    found: Verified | None = None
    for secret in secrets:
        for string in strings:
            same = hmac.compare_digest(sign(string, secret, algorithm), signature)
            found = Verified(string, algorithm, secret) if same and found is None else found
    if found is None:
        raise _invalid(signature, v2)
    return found


def _invalid(signature: str, string: str) -> InvalidSignature:
    shown = re.sub(r"[^0-9A-Za-z]", "", signature)[:128]
    return InvalidSignature(f"Invalid Signature {shown}. String to sign - '{string}'.")


_TIMESTAMP_OCTETS = 5  # enough for every timestamp that freshness.py reads
KEY_OCTETS = 32


def grant_key(cloud: str, api_key: str, timestamp: int, string: str) -> bytes:
    """K: what the ledger remembers. One grant in any spelling is one K.

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
    """32 octets: the timestamp, big-endian, in 5 of them, then the first 27 of the digest.

    So keys are in the order of their time, and what a database keeps by them comes and goes at one end of its indexes
    (docs/adr/0023-dated-keys.md). Two grants with one key would have 216 bits of SHA-256 alike, and the worst of it:
    the second would be refused.
    """
    return (timestamp.to_bytes(_TIMESTAMP_OCTETS, "big") + digest)[:KEY_OCTETS]


def timestamp_of(key: bytes) -> int:
    return int.from_bytes(key[:_TIMESTAMP_OCTETS], "big")


def sign_response(public_id: str, version: int, secret: str, algorithm: Algorithm = Algorithm.SHA1) -> str:
    """The `signature` of an upload's answer; SDKs verify it over version 1 of the string, without escapes."""
    params = {"public_id": public_id, "version": str(version)}
    return sign(string_to_sign(params, version=1), secret, algorithm)


def sign_delivery(source: str, secret: str, *, long: bool = False, algorithm: Algorithm = Algorithm.SHA1) -> str:
    """The text between `s--` and `--` of a delivery URL.

    `source` is the escaped path exactly as in the URL: transformation and public_id with extension, without
    resource type, delivery type, signature and version. Short form: 8 characters; long form: 32 of SHA-256.
    """
    digest = hashlib.new(Algorithm.SHA256 if long else algorithm, (source + secret).encode(), usedforsecurity=False)
    return base64.urlsafe_b64encode(digest.digest()).decode()[: 32 if long else 8]


def verify_delivery(source: str, signature: str, secrets: Sequence[str]) -> bool:
    """Whether a delivery signature of either length and algorithm fits one of the secrets."""
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
