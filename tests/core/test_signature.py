"""Signing and verifying: the vectors of the SDKs, the SDK itself, the shapes of a signature, and its life."""

import time
from functools import partial
from typing import Any

import cloudinary
import cloudinary.utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.signing import key_of, signed, verified
from tests.core.strategies import as_fields, sdk_parameters, secrets
from tests.core.vectors import SECRET, VECTORS, Vector
from uponce.core.errors import InvalidParameter, InvalidSignature, StaleRequest, UnknownParameter
from uponce.core.parameters import Call, parse_timestamp, read_parameters
from uponce.core.signature import (
    Signer,
    check_fresh,
    collect,
    duration,
    grant_key,
    keep_until,
    mint_fields,
    refuse_empty_limits,
    sign,
    sign_response,
    string_to_sign,
    timestamp_of,
    utc,
    verify,
)
from uponce.core.values import Algorithm

SHA1, SHA256 = Algorithm.SHA1, Algorithm.SHA256
seconds = st.integers(0, 10**10)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.id)
def test_vectors_of_the_sdks(vector: Vector) -> None:
    """Each recorded digest is what we sign, what the installed SDK signs, and what we accept."""
    params = collect(vector.fields)
    string = string_to_sign(params, version=vector.version)
    assert vector.string in (None, string)
    recorded = {SHA1: vector.sha1, SHA256: vector.sha256}
    for algorithm, digest in recorded.items():
        if digest is None:
            continue
        assert sign(string, SECRET, algorithm) == digest
        assert cloudinary.utils.api_sign_request(params, SECRET, str(algorithm), vector.version) == digest
        found = verify({**params, "signature": digest}, key_of(SECRET, allow_v1=vector.version == 1))
        assert found == (string, Signer("key", SHA1, SECRET))
    assert any(recorded.values())


def test_v12_the_sdks_own_suite() -> None:
    """V12 is of the bare function, which does not leave `cloud_name` out."""
    string = "cloud_name=dn6ot3ged&timestamp=1568810420&username=user@cloudinary.com"
    secret = "hdcixPpR2iKERPwqvH6sHdK9cyac"
    assert sign(string, secret) == "14c00ba6d0dfdedbc86b316847d95b9e6cd46d94"
    assert sign(string, secret, SHA256) == "45ddaa4fa01f0c2826f32f669d2e4514faf275fe6df053f1a150e7beae58a3bd"


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("version", [1, 2])
@given(params=sdk_parameters, secret=secrets)
def test_whatever_the_sdk_signs_is_accepted(
    algorithm: Algorithm, version: int, params: dict[str, str | list[str]], secret: str
) -> None:
    signature = cloudinary.utils.api_sign_request(params, secret, str(algorithm), version)
    collected = collect(as_fields(params))
    assert sign(string_to_sign(collected, version=version), secret, algorithm) == signature
    _, found = verify({**collected, "signature": signature}, key_of("another", secret, allow_v1=version == 1))
    assert found.secret == secret


@pytest.mark.parametrize(
    ("public_id", "version", "secret", "sha1", "sha256"),
    [
        (
            "sample_image",
            1312461204,
            SECRET,
            "82175722f594e2db13155bde1681e02b4d92dda3",
            "47adda68c9cfd75ed308efc1c1a5ebaca7fd93e8ed0a40692bbd6fb6e4fc9d3d",
        ),
        ("a&b", 1, SECRET, "22f9044c9a7a64c6ab084600f196276bb0a53dd9", None),
        (
            "tests/logo.png",
            1,
            "X7qLTrsES31MzxxkxPPA-pAGGfU",
            "08d3107a5b2ad82e7d82c0b972218fbf20b5b1e0",
            "cc69ae4ed73303fbf4a55f2ae5fc7e34ad3a5c387724bfcde447a2957cacdfea",
        ),
    ],
)
def test_vectors_of_response_signatures(
    public_id: str, version: int, secret: str, sha1: str, sha256: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The `signature` of an answer, and the SDK's own check of it."""
    monkeypatch.setattr(cloudinary.config(), "api_secret", secret)
    for algorithm, digest in ((SHA1, sha1), (SHA256, sha256)):
        if digest is None:
            continue
        assert sign_response(public_id, version, secret, algorithm) == digest
        assert cloudinary.utils.verify_api_response_signature(public_id, version, digest, str(algorithm))


def test_a_version_1_signature_needs_a_key_that_allows_it() -> None:
    """Only where a value holds `&` do the versions differ; version 2 is accepted always."""
    params = {"tags": "a&b", "timestamp": "1"}
    old, new = signed(params, version=1), signed(params)
    with pytest.raises(InvalidSignature):
        verified(old)
    assert verified(old, allow_v1=True) == "tags=a&b&timestamp=1"
    assert verified(new, allow_v1=True) == "tags=a%26b&timestamp=1"
    with pytest.raises(InvalidSignature, match=r"'\. The & in a value was signed .* Upgrade .* --allow-v1\.$"):
        verified(signed(params, "second", version=1), ("first", "second"))
    with pytest.raises(InvalidSignature, match=r"String to sign - 'tags=a%26b&timestamp=1'\.$"):
        verified(signed(params, "third", version=1), ("first", "second"))


def test_the_watermark_beats_the_window() -> None:
    """What may have been purged is stale, however long the window is now."""
    watermark = 1_700_000_000
    with pytest.raises(StaleRequest, match=r"not after 2023-11-14 22:13:20.*refuses all signatures"):
        check_fresh(watermark, now=watermark + 1, window=10**6, skew=300, watermark=watermark)
    check_fresh(watermark + 1, now=watermark + 1, window=10**6, skew=300, watermark=watermark)


@pytest.mark.parametrize(("window", "valid_for", "lifetime"), [(3600, None, 3600), (3600, 60, 60), (60, 3600, 60)])
def test_valid_for_shortens_and_never_prolongs(window: int, valid_for: int | None, lifetime: int) -> None:
    def check(age: float) -> None:
        check_fresh(1000, now=1000 + age, window=window, skew=0, watermark=None, valid_for=valid_for)

    check(lifetime)
    with pytest.raises(StaleRequest, match=rf"more than {duration(lifetime)} ago"):
        check(lifetime + 0.01)


def test_stale_request_reads_like_cloudinarys() -> None:
    with pytest.raises(StaleRequest) as caught:
        check_fresh(1712841818, now=1712841818 + 3601, window=3600, skew=300, watermark=None)
    assert str(caught.value) == (
        "Stale request - reported time is 2024-04-11 13:23:38 +0000 which is more than 1 hour ago"
    )


@given(timestamp=seconds, window=seconds, skew=seconds, upload=seconds, late=seconds)
def test_a_grant_is_remembered_for_as_long_as_it_could_be_used(
    timestamp: int, window: int, skew: int, upload: int, late: int
) -> None:
    """Were it accepted at the last moment and its upload as slow as allowed, its row would still be there."""
    kept = keep_until(timestamp, window=window, skew=skew, max_upload_seconds=upload)
    last_start = min(timestamp + window, kept)
    assert last_start + upload <= kept
    with pytest.raises(StaleRequest):
        check_fresh(timestamp, now=kept + 1 + late, window=window, skew=skew, watermark=None)


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0, "1970-01-01 00:00:00 +0000"),
        (1712841818.9, "2024-04-11 13:23:38 +0000"),
        (253402300799, "9999-12-31 23:59:59 +0000"),
        (253402300800, "253402300800 seconds after 1970"),
        (10**20, f"{10**20} seconds after 1970"),
    ],
)
def test_utc(timestamp: float, text: str) -> None:
    """Also a moment that no calendar here can hold has a text: clients choose the timestamp."""
    assert utc(timestamp) == text


def test_the_time_zone_of_the_machine_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        assert utc(1712841818) == "2024-04-11 13:23:38 +0000"
    time.tzset()


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (90, "90 seconds"),
        (120, "2 minutes"),
        (3600, "1 hour"),
        (5400, "90 minutes"),
        (7200, "2 hours"),
    ],
)
def test_span(length: int, text: str) -> None:
    assert duration(length) == text


def test_grant_key_is_the_documented_hash() -> None:
    """Pinned: rows of the ledger outlive releases, so K may never be computed otherwise."""
    assert grant_key("demo", "123", 1, "timestamp=1").hex() == (
        "000000000125163c755bc2f7725f95112500d5b3e596e3f99cd67639d4ce2571"
    )


def test_grant_keys_of_different_parts_differ() -> None:
    """Each part is preceded by its length, so no two grants run together."""
    parts = [("ab", "c", "d"), ("a", "bc", "d"), ("a", "b", "cd"), ("", "abc", "d"), ("abcd", "", ""), ("é", "c", "d")]
    assert len({grant_key(cloud, api_key, 1, string) for cloud, api_key, string in parts}) == len(parts)


def test_grant_keys_are_in_the_order_of_their_time() -> None:
    """Also of the latest timestamp that is read at all."""
    times = [0, 1, 255, 256, 1_767_225_600, parse_timestamp("999999999999")]
    keys = [grant_key("demo", "123", timestamp, "the rest") for timestamp in times]
    assert keys == sorted(keys)
    assert {len(key) for key in keys} == {32}
    assert [timestamp_of(key) for key in keys] == times


def _minted(params: dict[str, str], **more: Any) -> dict[str, str]:
    return mint_fields(params, api_key="key", secret="secret", now=1_700_000_000.5, **{"nonce": None, **more})


def test_minted_fields_are_what_the_server_verifies() -> None:
    fields = _minted({"folder": "cats"}, nonce="n")
    assert verified(fields, ["secret"], algorithms=[SHA256]) == string_to_sign(fields)
    del fields["signature"]
    assert fields == {"folder": "cats", "timestamp": "1700000000", "nonce": "n", "api_key": "key"}
    assert len(_minted({}, algorithm=Algorithm.SHA1)["signature"]) == 40


def test_a_key_that_takes_sha256_only_says_so_of_a_shorter_signature() -> None:
    """Python's `api_sign_request` makes SHA-1 by default."""
    fields = _minted({}, algorithm=Algorithm.SHA1)
    with pytest.raises(InvalidSignature, match=r"does not accept SHA-1\. Sign with SHA-256"):
        verified(fields, ["secret"], algorithms=[SHA256])
    with pytest.raises(InvalidSignature) as other:
        verified(fields | {"signature": "0" * 39}, ["secret"], algorithms=[SHA256])
    assert "SHA-256" not in other.value.message


def test_a_timestamp_and_a_nonce_that_are_given_are_kept() -> None:
    assert "nonce" not in _minted({})
    given = {"timestamp": "1600000000", "nonce": "mine"}
    assert given.items() <= _minted(given, nonce="another").items()


def test_what_the_server_would_refuse_is_not_signed() -> None:
    """Each call has its own parameters, and some names are never signed."""
    with pytest.raises(InvalidParameter, match="Parameter api_key is never signed"):
        _minted({"api_key": "key"})
    with pytest.raises(UnknownParameter, match="Unknown parameter folder"):
        _minted({"folder": "cats"}, read=partial(read_parameters, call=Call.DESTROY))
    assert _minted({"public_id": "cat"}, read=partial(read_parameters, call=Call.DESTROY))["public_id"] == "cat"


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (Algorithm.SHA1, "c19cc9729200663fe42d24497fae942f13ab36ae"),
        (Algorithm.SHA256, "ce54b2f092025322aac3f94750d948845d7ef951123b5da9d2952c1d14455227"),
    ],
)
def test_a_notification_is_signed_as_sdks_verify_it(algorithm: Algorithm, expected: str) -> None:
    body = b'{"notification_type":"upload","timestamp":"2026-01-01T00:00:00+00:00","public_id":"p1"}'
    assert sign(body + b"1700000000", "abcd", algorithm) == expected


@pytest.mark.parametrize(
    ("params", "empty"),
    [
        ({"origin": "https://a.example", "tags": "", "folder": "/", "nonce": ""}, None),
        ({"public_id_prefix": "X/", "transformation": "/"}, None),
        ({"tags": "", "origin": ""}, "origin"),
        ({"max_bytes": ""}, "max_bytes"),
        ({"public_id_prefix": "//"}, "public_id_prefix"),
    ],
)
def test_a_limit_without_a_value_is_not_signed(params: dict[str, str], empty: str | None) -> None:
    if empty is None:
        refuse_empty_limits(params)
        return
    with pytest.raises(InvalidParameter, match=f"Parameter {empty} is empty. Sign a value, or leave {empty} out"):
        refuse_empty_limits(params)


@pytest.mark.parametrize(
    ("algorithms", "algorithm"), [(tuple(Algorithm), Algorithm.SHA1), ((Algorithm.SHA256,), Algorithm.SHA256)]
)
def test_answers_are_signed_with_the_present_secret_and_by_sha1_if_the_key_accepts_it(
    algorithms: tuple[Algorithm, ...], algorithm: Algorithm
) -> None:
    key = key_of("present", "before", algorithms=algorithms)
    assert Signer.of(key) == Signer(key.api_key, algorithm, "present")
    assert Signer.of(key, "before").secret == "before"


@pytest.mark.parametrize(("length", "shown"), [(4000, "a" * 4000), (9000, "a" * 4094 + "…")])
def test_a_refusal_shows_so_much_of_what_was_signed(length: int, shown: str) -> None:
    with pytest.raises(InvalidSignature) as refused:
        verify({"x": "a" * length, "signature": "0" * 40}, key_of("s"))
    assert f"String to sign - 'x={shown}'" in refused.value.message
