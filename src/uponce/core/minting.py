"""Make a signature: what the server, the command line and the library do alike."""

from collections.abc import Mapping

from uponce.core.canonical import collect, refuse_ambiguous_escapes, string_to_sign
from uponce.core.errors import InvalidParameter
from uponce.core.freshness import parse_timestamp
from uponce.core.parameters import UNSIGNED, Call, read_parameters
from uponce.core.signature import sign
from uponce.core.values import Algorithm


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
