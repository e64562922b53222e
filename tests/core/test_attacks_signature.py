"""Attacks A12 to A18 on the signature itself and on its verifying: one test or table for each row of the list."""

import hashlib
import hmac
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.signing import SECRET, SIGNED, TIMESTAMP, key_of, signed, verified
from tests.core.strategies import parameter_values
from uponce.app.manage_keys import SECRET_LENGTH
from uponce.core import signature as signature_module
from uponce.core.errors import (
    InvalidSignature,
    UnknownParameter,
)
from uponce.core.parameters import PARAMETERS, UNSIGNED, parse_timestamp, read_parameters
from uponce.core.signature import DUMMY_KEY, collect, grant_key, refuse_ambiguous_escapes, sign, string_to_sign, verify
from uponce.core.values import Algorithm, ApiKey

SHA1, SHA256 = Algorithm.SHA1, Algorithm.SHA256

GOOD = sign(string_to_sign(SIGNED), SECRET)


@pytest.mark.parametrize(
    "signature",
    [
        GOOD.upper(),
        "0x" + GOOD,
        "0x" + GOOD[2:],
        " " + GOOD,
        GOOD + "\n",
        GOOD[:-1],
        GOOD + "0",
        "g" * 40,
        "٠" * 40,
        "",
        "null",
        f'["{GOOD}"]',
        f"{GOOD},{GOOD}",
        "0" * 32,
        "0" * 40,
        "0" * 64,
        "0" * 128,
        "0" * 100_000,
    ],
)
def test_a12_any_other_shape_is_refused_in_the_same_words(signature: str) -> None:
    with pytest.raises(InvalidSignature, match=r"^Invalid Signature [0-9A-Za-z]{0,128}\. String to sign - '"):
        verified({**SIGNED, "signature": signature})


@pytest.mark.parametrize("algorithm", Algorithm)
def test_a12_the_length_tells_the_algorithm_and_the_key_permits_it(algorithm: Algorithm) -> None:
    signature = sign(string_to_sign(SIGNED), SECRET, algorithm)
    assert len(signature) == {SHA1: 40, SHA256: 64}[algorithm]
    params = {**SIGNED, "signature": signature}
    assert verified(params, algorithms=[algorithm]) == string_to_sign(SIGNED)
    others = [other for other in Algorithm if other is not algorithm]
    with pytest.raises(InvalidSignature):
        verified(params, algorithms=others)


def test_a12_no_request_field_chooses_the_algorithm() -> None:
    with pytest.raises(UnknownParameter, match="signature_algorithm"):
        read_parameters({"signature_algorithm": "sha1", "timestamp": TIMESTAMP})


@pytest.mark.parametrize("tail", ["&overwrite=1", "x", ""])
def test_a13_a_lengthened_hash_fits_nothing(tail: str) -> None:
    """From H(text + secret) anyone can compute H(text + secret + padding + tail); the server never hashes that."""
    text = string_to_sign({"tags": "x", "timestamp": TIMESTAMP})
    length = len(text + SECRET)
    padding = b"\x80" + b"\0" * ((55 - length) % 64) + (8 * length).to_bytes(8, "big")
    lengthened = hashlib.sha1((text + SECRET).encode() + padding + tail.encode()).hexdigest()
    hidden = padding.decode("latin-1")
    for value in ("x", f"x{tail}", f"x{hidden}{tail}"):
        for timestamp in (TIMESTAMP, f"{TIMESTAMP}{tail}", f"{TIMESTAMP}{hidden}{tail}"):
            params = {"tags": value, "timestamp": timestamp, "signature": lengthened}
            with pytest.raises(InvalidSignature):
                verified(params, allow_v1=True)


def test_a14_the_boundary_between_text_and_secret_slides_only_for_related_secrets() -> None:
    """`timestamp=1` + `2abc` hashes like `timestamp=12` + `abc`; K is of another key, and secrets are random."""
    assert sign("timestamp=1", "2abc") == sign("timestamp=12", "abc")
    assert grant_key("demo", "one", 1, "timestamp=1") != grant_key("demo", "two", 12, "timestamp=12")
    assert SECRET_LENGTH * math.log2(36) >= 128


def test_a15_a_signature_by_another_key_is_refused() -> None:
    with pytest.raises(InvalidSignature):
        verified(signed(SIGNED, secret="another"))


def test_a15_a_rotated_secret_counts_until_it_is_gone() -> None:
    old = signed(SIGNED, secret="old")
    assert verify(old, key_of("new", "old"))[1].secret == "old"
    assert verified(old, ["new", "old"]) == verified(signed(SIGNED, secret="new"), ["new", "old"])
    for remaining in (["new"], []):
        with pytest.raises(InvalidSignature):
            verified(old, remaining)


def test_a15_one_text_is_another_grant_for_each_key_and_cloud() -> None:
    grants = {grant_key(cloud, key, 1, "timestamp=1") for cloud in ("demo", "other") for key in ("1", "2")}
    assert len(grants) == 4


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("signature", ["right", "wrong", "first differs", "last differs", "malformed"])
def test_a16_an_unknown_key_costs_the_same_hashing(
    algorithm: Algorithm, signature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verifying against the dummy secret hashes the same texts and compares as often as against a real one."""
    right = sign(string_to_sign(SIGNED), SECRET, algorithm)
    digest = {
        "right": right,
        "wrong": "0" * len(right),
        "first differs": ("1" if right[0] == "0" else "0") + right[1:],
        "last differs": right[:-1] + ("1" if right[-1] == "0" else "0"),
        "malformed": "nonsense",
    }[signature]
    work: list[tuple[str, object]] = []
    compare = hmac.compare_digest

    def counted_sign(string: str, secret: str, algorithm: Algorithm = SHA1) -> str:
        work.append((string, algorithm))
        return sign(string, secret, algorithm)

    def counted_compare(a: str, b: str) -> bool:
        work.append(("compare", (len(a), len(b))))
        return compare(a, b)

    monkeypatch.setattr(signature_module, "sign", counted_sign)
    monkeypatch.setattr(hmac, "compare_digest", counted_compare)

    def work_for(key: ApiKey) -> list[tuple[str, object]]:
        work.clear()
        with suppress(InvalidSignature):
            verify({**SIGNED, "signature": digest}, key)
        return list(work)

    assert work_for(DUMMY_KEY) == work_for(key_of(SECRET))
    assert len(work) == (0 if signature == "malformed" else 2)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a16_a_match_does_not_end_the_comparing(position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of comparisons does not show which of several secrets fitted."""
    keys = ["k0", "k1", "k2"]
    params = signed(SIGNED, secret=keys[position])
    seen: list[str] = []

    def counted_sign(string: str, secret: str, algorithm: Algorithm = SHA1) -> str:
        seen.append(secret)
        return sign(string, secret, algorithm)

    monkeypatch.setattr(signature_module, "sign", counted_sign)
    verified(params, keys)
    assert seen == keys


@pytest.mark.parametrize("carrier", ["tags", "public_id", "nonce"])
def test_a17_the_signature_value_elsewhere_changes_nothing(carrier: str) -> None:
    """Nothing is cut out of text: the signature inside another value is that value's, and is signed as such."""
    params = signed({carrier: "x", "timestamp": TIMESTAMP})
    digest = params["signature"]
    for value in (f"x{digest}", f"{digest}x", digest, f"x&signature={digest}"):
        with pytest.raises(InvalidSignature):
            verified({**params, carrier: value}, allow_v1=True)
        assert value.replace("&", "%26") in verified(signed({carrier: value, "timestamp": TIMESTAMP}))


@given(
    params=st.dictionaries(st.sampled_from(sorted(PARAMETERS.keys() - UNSIGNED)), parameter_values, max_size=4),
    secret=st.text("0123456789abcdef", min_size=9).map("sécret-{}".format),
    signature=st.text(max_size=80) | st.just("0" * 40) | st.just("0" * 64),
)
def test_a18_the_error_tells_the_string_and_no_secret(params: dict[str, str], secret: str, signature: str) -> None:
    """Enough to find one's mistake, as Cloudinary shows it; neither the secret nor what would have been right."""
    with pytest.raises(InvalidSignature) as caught:
        verified({**params, "signature": signature}, [secret], allow_v1=True)
    text = str(caught.value) + caught.value.detail
    string = string_to_sign(params)
    assert text.endswith(f". String to sign - '{string}'.")
    assert secret not in text
    assert not any(sign(string, secret, algorithm) in text for algorithm in Algorithm)


@pytest.mark.parametrize(
    ("signature", "shown"),
    [
        ("dfe8B47c", "dfe8B47c"),
        ("<script>alert(1)</script>\r\nX: y", "scriptalert1scriptXy"),
        ("f" * 1000, "f" * 128),
        ("", ""),
    ],
)
def test_a18_the_error_shows_of_the_signature_what_is_harmless(signature: str, shown: str) -> None:
    with pytest.raises(InvalidSignature, match=rf"^Invalid Signature {shown}\. String to sign - 'timestamp=1'\.$"):
        verified({"timestamp": "1", "signature": signature})


def test_all_at_once_a_genuine_request_passes() -> None:
    """The other side of every refusal above."""
    params = collect(signed(SIGNED, algorithm=SHA256).items())
    assert verified(params) == string_to_sign(SIGNED)
    refuse_ambiguous_escapes(params)
    assert read_parameters(params).naming.public_id == "p1"
    assert parse_timestamp(params["timestamp"]) == int(TIMESTAMP)
