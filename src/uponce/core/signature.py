"""Signatures: the exact bytes behind one, the one place that hashes them with an API secret, and how long one lives.

The rules of the bytes are those of Cloudinary's SDKs (`api_sign_request`), applied to the strings *as received*:

1. the parameters that are never signed are omitted (UNSIGNED in parameters.py);
2. `name[]`, repeated, becomes `name` with its values joined by `,` in order of arrival; so does Go's `name[0]`,
   `name[1]`, in order of the names as texts: `name[10]` precedes `name[2]`;
3. empty values are left out: posting an empty parameter means not posting it;
4. version 2 replaces `&` by `%26` in each `name=value`; version 1 does not, so that in version 1 one value can
   pose as several parameters (CVE-2025-12613);
5. the `name=value` strings are sorted and joined with `&`.

The SDKs sort `name=value` strings (Python, npm 2.1) or names (npm ≥ 2.7). The two agree for all parameter names
that exist, since none is another's prefix followed by a character below `=`.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import Self, TypeGuard

from uponce.core.errors import (
    DuplicateParameter,
    FutureTimestamp,
    InvalidParameter,
    InvalidSignature,
    StaleRequest,
    shown,
)
from uponce.core.parameters import PARAMETERS, UNSIGNED, Use, parse_timestamp, read_parameters, unknown
from uponce.core.values import Algorithm, ApiKey, KeyScope, KeyUses

_NUMBERED = re.compile(r"([^\[\]]+)\[(?:0|[1-9][0-9]{0,5})\]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_HEX = {Algorithm.SHA1: re.compile(r"[0-9a-f]{40}"), Algorithm.SHA256: re.compile(r"[0-9a-f]{64}")}

# Verified in place of an unknown API key, so that an unknown key takes as long as a known one.
DUMMY_KEY = ApiKey("", "", ("no-such-key-has-this-secret",), KeyUses.ONCE, KeyScope.UPLOAD, window=0)


@dataclass(frozen=True, slots=True)
class Signer:
    """An API key, one of its secrets, and an algorithm: they sign answers and notifications."""

    api_key: str
    algorithm: Algorithm
    secret: str = field(repr=False)

    @classmethod
    def of(cls, key: ApiKey, secret: str | None = None) -> Self:
        """Return the signer of a key, by default with its present secret.

        It signs with SHA-1, which SDKs verify by default, unless the key accepts SHA-256 only. The algorithm of the
        request does not count: one configuration of an SDK verifies all that a key signs.
        """
        algorithm = Algorithm.SHA1 if Algorithm.SHA1 in key.algorithms else Algorithm.SHA256
        return cls(key.api_key, algorithm, secret or key.secrets[0])


def collect(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return one value for each name. The fields are in order of arrival. uponce verifies and uses this one object.

    Raise DuplicateParameter if a scalar was sent twice: also as `name` beside `name[]` or `name[0]`, also in the query
    and in the body. Raise InvalidParameter for a lone surrogate, which no SDK could have signed.
    """
    params: dict[str, str] = {}
    lists: dict[str, list[tuple[str, str]]] = {}
    for sent_name, value in fields:
        if _SURROGATES.search(sent_name + value):
            raise InvalidParameter("A parameter contains a lone surrogate, which is not a character. Send valid UTF-8.")
        name = bare_name(sent_name)
        if name != sent_name:
            lists.setdefault(name, []).append((sent_name, value))
        elif name in params:
            raise _sent_twice(name)
        else:
            params[name] = value
    for name, items in lists.items():
        if name in params:
            raise _sent_twice(name)
        params[name] = _joined(name, items)
    return {name: value for name, value in params.items() if value != ""}


def bare_name(sent_name: str) -> str:
    """Return the name of the parameter: without the `[]` or `[0]` of a list. Only a signed list has numbers."""
    if not sent_name.endswith("]"):
        return sent_name
    numbered = _NUMBERED.fullmatch(sent_name)
    if numbered and numbered[1] not in UNSIGNED:
        return numbered[1]
    return sent_name.removesuffix("[]")


def _joined(name: str, items: Sequence[tuple[str, str]]) -> str:
    """Return the items of one list as one value. They are all `name[]`, or have each another number."""
    names = {sent_name for sent_name, _ in items}
    if len(names) != (1 if f"{name}[]" in names else len(items)):
        raise _sent_twice(name)
    if len(items) > 1 and name in PARAMETERS and PARAMETERS[name].use is Use.NAMING:  # `a,b` would be a name
        raise InvalidParameter(f"Parameter {name} takes one value, not a list of {len(items)}. Make a call for each.")
    return ",".join(value for _, value in sorted(items, key=itemgetter(0)))


def _sent_twice(name: str) -> DuplicateParameter:
    return DuplicateParameter(f"Parameter {shown(name)} was sent more than once. Send it once.")


def collect_known(fields: Iterable[tuple[str, str]], *more: str) -> dict[str, str]:
    """Return `collect(fields)`. Raise UnknownParameter for an empty field that is neither known nor in `more`."""
    fields = tuple(fields)
    params = collect(fields)
    for sent_name, value in fields:
        if value == "" and (name := bare_name(sent_name)) not in PARAMETERS and name not in more:
            raise unknown(name)
    return params


def string_to_sign(params: Mapping[str, str], *, version: int = 2) -> str:
    """Return the canonical text of collected parameters, without the secret."""
    pairs = [f"{name}={value}" for name, value in params.items() if name not in UNSIGNED and value != ""]
    if version == 2:
        pairs = [pair.replace("&", "%26") for pair in pairs]
    return "&".join(sorted(pairs))


def refuse_ambiguous_escapes(params: Mapping[str, str]) -> None:
    """Raise InvalidParameter for `%26`: version 2 escapes `&` but not `%`, so `x&y` and `x%26y` sign alike."""
    for name, value in params.items():
        if name not in UNSIGNED and "%26" in f"{name}={value}":
            raise InvalidParameter(f"Parameter {name} contains %26, which signs like &. Send the & itself.")


# Without a value, these leave out a name, a label or a message. Every other parameter limits or decides something.
_MAY_BE_EMPTY = frozenset("callback context filename_override folder nonce notification_url public_id tags".split())


def refuse_empty_limits(params: Mapping[str, str]) -> None:
    """Raise InvalidParameter for an empty value that would leave a limit out of a new signature.

    For programs and commands that sign: an empty `origin` is a missing setting there, and not a wish for every origin.
    A prefix of slashes is empty too.
    """
    for name, value in params.items():
        bare = value.strip("/") if name == "public_id_prefix" else value
        if not bare and name not in _MAY_BE_EMPTY:
            raise empty(name)


def empty(name: str) -> InvalidParameter:
    """Return the error for a limit without a value."""
    return InvalidParameter(f"Parameter {name} is empty. Sign a value, or leave {name} out.")


def sign(content: str | bytes, secret: str, algorithm: Algorithm = Algorithm.SHA1) -> str:
    """Return the lower-case hex of H(content + secret). A notification's content is its body and its timestamp."""
    octets = content.encode() if isinstance(content, str) else content
    return hashlib.new(algorithm, octets + secret.encode(), usedforsecurity=False).hexdigest()


def verify(params: Mapping[str, str], key: ApiKey) -> tuple[str, Signer]:
    """Return the string-to-sign that the signature among the parameters fits, and the signer of the answer.

    During a rotation a key has two secrets: the signer has the secret that made the signature. Raise InvalidSignature
    if no secret made it. Every spelling is computed and compared in constant time, also after one fits. Version 1 is
    compared even where it is not allowed, so that the refusal can name the cause.
    """
    signature, v2 = params["signature"], string_to_sign(params)
    v1 = string_to_sign(params, version=1) if "%26" in v2 else v2
    algorithm = next((a for a in key.algorithms if _HEX[a].fullmatch(signature)), None)
    if algorithm is None:
        raise _invalid(signature, v2, _SHORT if _HEX[Algorithm.SHA1].fullmatch(signature) else "")
    found: tuple[str, Signer] | None = None
    for secret in key.secrets:
        for string in dict.fromkeys((v2, v1)):  # one, unless a value has an `&`
            same = hmac.compare_digest(sign(string, secret, algorithm), signature)
            found = (string, Signer.of(key, secret)) if same and found is None else found
    if found is None:
        raise _invalid(signature, v2)
    if found[0] != v2 and not key.allow_v1:
        raise _invalid(signature, v2, _OLD_SDK)
    return found


_MOST_SHOWN = 4096
_SHORT = " This key does not accept SHA-1. Sign with SHA-256: in SDKs, algorithm or signature_algorithm."
_OLD_SDK = (
    " The & in a value was signed in the unsafe way of old SDKs. Upgrade the SDK that signs, or sign with a key made "
    "with --allow-v1."
)


def _invalid(signature: str, string: str, hint: str = "") -> InvalidSignature:
    """Return the refusal with the start of what was signed: a client that reads no answer must not fill the memory."""
    received = re.sub(r"[^0-9A-Za-z]", "", signature[:_MOST_SHOWN])[:128]
    text = string if len(string) <= _MOST_SHOWN else f"{string[:_MOST_SHOWN]}…"
    return InvalidSignature(f"Invalid Signature {received}. String to sign - '{text}'.{hint}")


def mint_fields(
    params: Mapping[str, str],
    *,
    api_key: str,
    secret: str,
    now: float,
    nonce: str | None,
    algorithm: Algorithm = Algorithm.SHA256,
    read: Callable[[Mapping[str, str]], object] = read_parameters,
) -> dict[str, str]:
    """Return the parameters with timestamp, nonce, signature and api_key: the fields to post.

    A timestamp or nonce in `params` is kept. `read` raises a ParameterRefused for what the server would refuse.
    """
    for name in params:
        if name in UNSIGNED:
            raise InvalidParameter(f"Parameter {name} is never signed. Omit it.")
    fields = collect(params.items())
    fields.setdefault("timestamp", str(int(now)))
    if nonce is not None:
        fields.setdefault("nonce", nonce)
    read(fields)
    refuse_ambiguous_escapes(fields)
    parse_timestamp(fields["timestamp"])
    return {**fields, "signature": sign(string_to_sign(fields), secret, algorithm), "api_key": api_key}


def works_in(key: ApiKey | None, cloud: str) -> TypeGuard[ApiKey]:
    """Return whether it is a key of this cloud that is not revoked."""
    return key is not None and key.cloud == cloud and key.revoked_at is None


def check_fresh(
    timestamp: int, *, now: float, window: int, skew: int, watermark: int | None, valid_for: int | None = None
) -> None:
    """Raise unless timestamp − skew ≤ now ≤ timestamp + lifetime and the timestamp is after the watermark.

    The lifetime is the key's window, or the signed `valid_for` if that is shorter. All in seconds. The watermark is the
    newest timestamp whose ledger rows may be gone, by a purge or by a restore. At or before the watermark the ledger
    cannot know whether a signature was spent, so the signature is stale, whatever the window says now.
    """
    check_not_future(timestamp, now=now, skew=skew)
    lifetime = window if valid_for is None else min(window, valid_for)
    if now > timestamp + lifetime:
        raise StaleRequest(
            f"Stale request - reported time is {utc(timestamp)} which is more than {duration(lifetime)} ago"
        )
    check_watermark(timestamp, watermark)


def check_not_future(
    timestamp: int, *, now: float, skew: int, cure: str = "Correct the clock of the machine that signs."
) -> None:
    """Raise FutureTimestamp unless timestamp − skew ≤ now. All in seconds."""
    if timestamp > now + skew:
        raise FutureTimestamp(
            f"Timestamp is in the future - reported time is {utc(timestamp)}, but the server's time is {utc(now)}. The "
            f"limit is {skew} seconds. {cure}"
        )


def check_watermark(timestamp: int, watermark: int | None) -> None:
    """Raise StaleRequest if the timestamp is at or before the watermark: the ledger may have dropped its row."""
    if watermark is not None and timestamp <= watermark:
        raise StaleRequest(
            f"Stale request - reported time is {utc(timestamp)} which is not after {utc(watermark)}. "
            "The server refuses all signatures up to that time. Ask for a new signature."
        )


def keep_until(timestamp: int, *, window: int, skew: int, max_upload_seconds: int) -> int:
    """Return the last Unix second in which the ledger needs the row of a grant: no server accepts or commits it later.

    Counted from the signature's timestamp and the key's full window, never from the time of use. With a timestamp in
    the future skew, a signature lives longer than a row that is kept from its use on. uponce would accept it again.
    """
    return timestamp + window + skew + max_upload_seconds


def utc(timestamp: float) -> str:
    """Return `2024-04-11 13:23:38 +0000`, the form of Cloudinary's own messages."""
    try:
        return datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%d %H:%M:%S +0000")
    except (OverflowError, ValueError, OSError):
        return f"{int(timestamp)} seconds after 1970"


def duration(seconds: int) -> str:
    """Return `1 hour`, `2 minutes` or `90 seconds`."""
    for size, unit in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0 and seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} seconds"


_TIMESTAMP_OCTETS = 5  # enough for every timestamp that parse_timestamp returns
KEY_OCTETS = 32


def grant_key(cloud: str, api_key: str, timestamp: int, string: str) -> bytes:
    """Return K, which names the grant in the ledger. One grant in any spelling has one K.

    K is `dated` over a SHA-256 and the timestamp in the string. The hash covers the cloud, the API key and the
    string-to-sign that verified, each after its length in bytes as 8 big-endian octets. It never covers the received
    hex (SHA-1 and SHA-256 of one grant are two spellings), the route or the resource type.
    """
    digest = hashlib.sha256()
    for part in (cloud, api_key, string):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return dated(timestamp, digest.digest())


def dated(timestamp: int, digest: bytes) -> bytes:
    """Return 32 octets: the timestamp in 5 octets, big-endian, then the first 27 octets of the digest.

    So keys are in the order of their time, and a database adds and drops rows at one end of its indexes
    (docs/adr/0023-dated-keys.md). Two grants have one key only if 216 bits of their SHA-256 are equal. uponce would
    then refuse the second one, and do no other harm.
    """
    return (timestamp.to_bytes(_TIMESTAMP_OCTETS, "big") + digest)[:KEY_OCTETS]


def timestamp_of(key: bytes) -> int:
    """Return the timestamp in a grant key, in Unix seconds."""
    return int.from_bytes(key[:_TIMESTAMP_OCTETS], "big")


def sign_response(public_id: str, version: int, secret: str, algorithm: Algorithm = Algorithm.SHA1) -> str:
    """Return the `signature` of an answer. SDKs verify it over version 1 of the string, without escapes."""
    return sign(f"public_id={public_id}&version={version}", secret, algorithm)


def sign_delivery(source: str, secret: str, *, long: bool = False, algorithm: Algorithm = Algorithm.SHA1) -> str:
    """Return the text between `s--` and `--` of a delivery URL.

    `source` is the escaped path exactly as in the URL: transformation and public_id with extension, without resource
    type, delivery type, signature and version. Short form: 8 characters; long form: 32 of SHA-256.
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
