"""A signer and a server in a few lines: what the tests of attacks sign with and verify by."""

from collections.abc import Sequence

from uponce.core.signature import sign, string_to_sign, verify
from uponce.core.values import Algorithm, ApiKey, KeyScope, KeyUses

SECRET = "k5x0q3v8m1z7"
TIMESTAMP = "1700000000"
SIGNED = {"public_id": "p1", "folder": "f", "tags": "x", "timestamp": TIMESTAMP}


def signed(
    params: dict[str, str], secret: str = SECRET, algorithm: Algorithm = Algorithm.SHA1, version: int = 2
) -> dict[str, str]:
    """The parameters with their signature."""
    return {**params, "signature": sign(string_to_sign(params, version=version), secret, algorithm)}


def key_of(*secrets: str, allow_v1: bool = False, algorithms: Sequence[Algorithm] = tuple(Algorithm)) -> ApiKey:
    """A key with these secrets."""
    return ApiKey(
        "key", "demo", secrets, KeyUses.ONCE, KeyScope.UPLOAD, 3600, allow_v1=allow_v1, algorithms=tuple(algorithms)
    )


def verified(
    params: dict[str, str],
    secrets: Sequence[str] = (SECRET,),
    *,
    allow_v1: bool = False,
    algorithms: Sequence[Algorithm] = tuple(Algorithm),
) -> str:
    """The string that the signature among the parameters fits, or InvalidSignature."""
    return verify(params, key_of(*secrets, allow_v1=allow_v1, algorithms=algorithms))[0]
