"""Whether signed parameters may upload: asked before the file is read, and for repeats too."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.app.uploads import CALLER
from tests.contract.databases import draft
from tests.world import World
from uponce.app.authenticate import authenticate
from uponce.app.authorise import (
    UploadRequest,
    Verified,
    authorise,
    check_in_time,
    check_usable,
    require_credentials,
    verify_signed,
)
from uponce.core.errors import (
    BadCredentials,
    InvalidParameter,
    InvalidSignature,
    MissingParameter,
    OriginMismatch,
    OutcomeUnknown,
    SignatureUsed,
    StaleRequest,
    UnknownApiKey,
    UnknownCloud,
    UnknownParameter,
    UnsupportedParameter,
)
from uponce.core.parameters import Call
from uponce.core.signature import Signer, verify
from uponce.core.values import Algorithm, ApiKey, AuditEvent, ResourceType, Upstream

APP, OTHER = "https://app.example", "https://other.example"


def ask(
    world: World,
    fields: Mapping[str, str],
    *,
    requested: ResourceType | None = None,
    origin: str | None = None,
    key: str | None = None,
) -> Verified:
    """`key` is the Idempotency-Key."""
    return asyncio.run(authorise(world.services, UploadRequest("demo", requested, (), origin, CALLER, key), fields))


def test_a_refusal_costs_the_same_for_an_unknown_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time must not show which keys and clouds exist."""
    verified: list[ApiKey] = []

    def counted(params: Mapping[str, str], key: ApiKey) -> tuple[str, Signer]:
        verified.append(key)
        return verify(params, key)

    monkeypatch.setattr("uponce.app.authorise.verify", counted)
    forged = {**world.sign(), "signature": "0" * 40}
    for cloud, api_key, refusal in [
        ("demo", world.browser.api_key, InvalidSignature),
        ("demo", "1" * 15, UnknownApiKey),
        ("elsewhere", world.browser.api_key, UnknownApiKey),
        ("no-such-cloud", world.browser.api_key, UnknownCloud),
    ]:
        verified.clear()
        with pytest.raises(refusal):
            asyncio.run(
                authorise(world.services, UploadRequest(cloud, None, (), None, CALLER), {**forged, "api_key": api_key})
            )
        assert len(verified) == 1, (cloud, api_key)


def test_wrong_credentials_cost_the_same_for_an_unknown_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr("uponce.app.authenticate.hmac", SimpleNamespace(compare_digest=counted))
    for api_key in (world.browser.api_key, "1" * 15, world.foreign.api_key):
        compared.clear()
        with pytest.raises(BadCredentials):
            asyncio.run(authenticate(world.services, "demo", api_key, "wrong"))
        assert len(compared) == 1, api_key


@pytest.mark.parametrize("origin", [APP, "http://localhost:8080"])
def test_a_signed_origin_lets_those_in_that_it_names(world: World, origin: str) -> None:
    ask(world, world.sign({"origin": f"{APP},http://localhost:8080"}), origin=origin)


@pytest.mark.parametrize(
    ("origin", "told"), [(OTHER, OTHER), (APP + ".evil.example", APP + ".evil.example"), (None, "no web origin")]
)
def test_a_signed_origin_keeps_all_others_out(world: World, origin: str | None, told: str) -> None:
    with pytest.raises(OriginMismatch) as caught:
        ask(world, world.sign({"origin": f"{APP},http://localhost:8080"}), origin=origin)
    assert str(caught.value) == (
        f"This signature is for uploads from {APP}, http://localhost:8080. The request came from {told}. "
        "Upload from the signed origin, or sign another one."
    )


def test_a_repeat_is_told_to_its_origin_only(world: World) -> None:
    """A stored answer is as private as the upload was."""
    fields = world.sign({"origin": APP})
    with pytest.raises(OriginMismatch):
        ask(world, fields, key="k")
    asyncio.run(_commit(world, fields))
    assert ask(world, fields, origin=APP, key="k").spec.origin == (APP,)
    for origin in (OTHER, None):
        with pytest.raises(OriginMismatch, match=f"came from {origin or 'no web origin'}"):
            ask(world, fields, origin=origin, key="k")


async def _commit(world: World, fields: Mapping[str, str]) -> None:
    """As an upload from APP under the Idempotency-Key `k` would."""
    verified = await authorise(world.services, UploadRequest("demo", None, (), APP, CALLER, "k"), fields)
    await world.database.commit(verified.grant, replace(draft(blob="b"), idempotency_key="k"), CALLER)


@pytest.mark.parametrize("requested", [*ResourceType, None])
def test_the_route_may_be_said_again_in_the_parameters(world: World, requested: ResourceType | None) -> None:
    same = {**world.sign(), "resource_type": requested or "auto", "cloud_name": "demo"}
    assert ask(world, same, requested=requested).key.api_key == world.browser.api_key
    with pytest.raises(InvalidParameter, match=f"resource_type is 'other', but the URL says {requested or 'auto'}"):
        ask(world, {**same, "resource_type": "other"}, requested=requested)


def test_what_a_fence_or_a_purge_forgot_is_stale_before_the_file_is_read(world: World) -> None:
    fields = world.sign()
    asyncio.run(world.database.fence(0))
    with pytest.raises(StaleRequest, match="refuses all signatures up to that time"):
        ask(world, fields)


def test_a_signature_lives_as_long_as_it_was_signed_for(world: World) -> None:
    fields = world.sign({"valid_for": 60})
    world.clock.time += 60
    ask(world, fields)
    world.clock.time += 1
    with pytest.raises(StaleRequest, match="more than 1 minute ago"):
        ask(world, fields)


def test_and_no_longer_than_those_of_its_key(world: World) -> None:
    window = world.browser.window
    assert ask(world, world.sign({"valid_for": window})).spec.valid_for == window
    with pytest.raises(InvalidParameter) as caught:
        ask(world, world.sign({"valid_for": window + 1}))
    assert str(caught.value) == (
        f"Parameter valid_for is {window + 1} seconds. The limit of this key is {window} seconds. "
        "Sign a smaller valid_for."
    )


def test_the_parts_of_a_series_are_asked_as_single_uploads_are(world: World) -> None:
    """Their origin, and whether their signature is spent; a refusal is audited."""
    verified = ask(world, world.sign({"origin": APP}), origin=APP)

    async def usable(origin: str | None) -> None:
        await check_usable(world.services, verified, UploadRequest("demo", None, (), origin, CALLER))

    asyncio.run(usable(APP))
    with pytest.raises(OriginMismatch):
        asyncio.run(usable(OTHER))
    asyncio.run(world.database.commit(verified.grant, draft(blob="b"), CALLER))
    with pytest.raises(SignatureUsed):
        asyncio.run(usable(APP))
    told = asyncio.run(world.database.history(verified.grant.key, 10))
    assert [(line.event, line.code, line.caller) for line in told][1:] == [
        (AuditEvent.REFUSED, "signature_used", CALLER)
    ]


def test_the_answer_is_signed_with_the_secret_of_the_request(world: World) -> None:
    """So it verifies during a rotation too. The algorithm is that of the key, as with notifications."""
    old, key = world.browser.secrets[0], world.browser.api_key
    fields = world.sign(algorithm="sha256")
    assert ask(world, fields).signer == Signer(key, Algorithm.SHA1, old)
    asyncio.run(world.database.rotate_key(key, "newer", 100))
    assert ask(world, fields).signer == Signer(key, Algorithm.SHA1, old)
    assert ask(world, world.sign(key=replace(world.browser, secrets=("newer",)))).signer.secret == "newer"


def test_an_unknown_key_is_told_from_an_unknown_cloud(world: World) -> None:
    async def ask_in(cloud: str, fields: Mapping[str, str]) -> None:
        await authorise(world.services, UploadRequest(cloud, None, (), None, CALLER), fields)

    stranger = world.sign(key=replace(world.browser, api_key="9" * 70))
    with pytest.raises(UnknownApiKey, match=rf"^Unknown API key {'9' * 64}$"):
        asyncio.run(ask_in("demo", stranger))
    with pytest.raises(UnknownApiKey, match=f"^Unknown API key {world.browser.api_key}$"):
        asyncio.run(ask_in("elsewhere", world.sign()))
    with pytest.raises(UnknownCloud, match=r"^Invalid cloud_name nowhere$"):
        asyncio.run(ask_in("nowhere", stranger))


def test_version_1_is_accepted_of_keys_that_allow_it(world: World) -> None:
    old = replace(world.browser, api_key="333", allow_v1=True)
    asyncio.run(world.database.add_key(old))
    params = {"tags": "a&b"}
    assert ask(world, world.sign(params, key=old, signature_version=1)).key == old
    with pytest.raises(InvalidSignature):
        ask(world, world.sign(params, signature_version=1))


def test_an_unsigned_upload_is_told_what_is_missing(world: World) -> None:
    with pytest.raises(
        MissingParameter, match=r"^Upload preset must be specified when using unsigned upload\. Sign the upload: send"
    ):
        ask(world, {"folder": "cats"})
    with pytest.raises(UnsupportedParameter) as caught:
        ask(world, {"folder": "cats", "upload_preset": "p"})
    assert str(caught.value) == "Unsigned uploads with an upload_preset are not supported. Sign the upload."


def test_a_call_that_is_no_upload_gets_no_advice_for_uploads() -> None:
    with pytest.raises(MissingParameter, match=r"^Missing required parameter - api_key$"):
        require_credentials({"folder": "cats"})


@pytest.mark.parametrize("name", ["api_key", "signature", "timestamp"])
def test_each_credential_is_needed(world: World, name: str) -> None:
    fields = world.sign()
    del fields[name]
    with pytest.raises(MissingParameter, match=f"^Missing required parameter - {name}$"):
        ask(world, fields)


def test_a_preset_that_was_signed_is_refused_by_its_name(world: World) -> None:
    with pytest.raises(UnsupportedParameter, match=r"^Parameter upload_preset is not supported by this server yet"):
        ask(world, world.sign({"upload_preset": "p"}))


def test_a_deletion_knows_fewer_parameters_than_an_upload(world: World) -> None:
    fields = world.sign({"public_id": "cat", "tags": "pet"}, key=world.server)
    asyncio.run(verify_signed(world.services, "demo", fields))
    with pytest.raises(UnknownParameter, match=r"^Unknown parameter tags"):
        asyncio.run(verify_signed(world.services, "demo", fields, Call.DESTROY))


@pytest.mark.parametrize(
    ("origin", "key", "refusal"),
    [(APP, "k", OutcomeUnknown), (APP, None, StaleRequest), (OTHER, "k", OriginMismatch)],
)
def test_a_stale_grant_that_is_pending_may_be_repeated(
    world: World, origin: str, key: str | None, refusal: type[Exception]
) -> None:
    """Its upload began in time and was passed on. It has another use left."""
    verified = _pending(world, max_uses=2)
    with pytest.raises(refusal):
        _check_in_time(world, verified, UploadRequest("demo", None, (), origin, CALLER, key))


@pytest.mark.parametrize("key", ["k", None])
def test_a_stale_grant_whose_other_use_is_spent_may_be_repeated_without_a_name(world: World, key: str | None) -> None:
    verified = _pending(world, max_uses=1)
    with pytest.raises(OutcomeUnknown):
        _check_in_time(world, verified, UploadRequest("demo", None, (), APP, CALLER, key))


def test_a_stale_grant_that_is_pending_and_spent_is_refused_as_spent(world: World) -> None:
    """Another use of it is pending. The refusal is audited."""
    verified = _pending(world, max_uses=2)
    once = replace(verified, grant=replace(verified.grant, max_uses=1))
    world.sql("UPDATE grants SET uses = 2")
    with pytest.raises(SignatureUsed):
        _check_in_time(world, once, UploadRequest("demo", None, (), APP, CALLER))
    told = asyncio.run(world.database.history(verified.grant.key, 10))
    assert [(line.event, line.code, line.caller) for line in told][1:] == [
        (AuditEvent.REFUSED, "signature_used", CALLER)
    ]


def _pending(world: World, *, max_uses: int) -> Verified:
    """Return a grant that has expired, and one use of which is pending in an upstream."""
    verified = ask(world, world.sign({"origin": APP, "max_uses": max_uses}), origin=APP)
    asyncio.run(world.database.commit(verified.grant, draft(blob="b"), CALLER))
    world.sql("UPDATE grants SET pending = 1")
    world.clock.time += world.browser.window + 1
    return verified


def _check_in_time(world: World, verified: Verified, request: UploadRequest) -> None:
    asyncio.run(check_in_time(world.services, verified, request))


def test_the_audit_gets_as_many_refusals_of_a_grant_as_the_limit_says(world: World) -> None:
    """One row more counts all further ones."""
    world.swap(limits=replace(world.services.limits, refusals_per_grant=2))
    fields = world.sign({"origin": APP})
    asyncio.run(_commit(world, fields))
    for _ in range(5):
        with pytest.raises(SignatureUsed):
            ask(world, fields, origin=APP)
    assert world.sql("SELECT count(*) FROM audit WHERE event = 'refused'") == 3
    assert world.sql("SELECT max(count) FROM audit WHERE event = 'refused'") == 3


def test_an_upstream_gets_parameters_that_only_it_knows(world: World) -> None:
    """Cloudinary's own parameters are for the account to judge."""
    fields = {"some_day": "1"}
    with pytest.raises(UnknownParameter):
        ask(world, world.sign(fields))
    account = Upstream("acme", "98765", "a-secret-of-some-account")
    relaying = replace(world.browser, api_key="444", upstream=account)
    asyncio.run(world.database.add_key(relaying))
    asyncio.run(world.database.set_upstream("demo", account))
    assert ask(world, world.sign(fields, key=relaying)).params["some_day"] == "1"


def test_a_field_narrows_the_route_auto_and_no_other() -> None:
    def narrowed(requested: ResourceType | None, field: str) -> UploadRequest:
        request = UploadRequest("demo", requested, (), None, CALLER)
        narrow = request.narrowed({"resource_type": field})
        assert (narrow is request) == (narrow.requested is requested)
        return narrow

    assert narrowed(None, "video").requested is ResourceType.VIDEO
    assert narrowed(None, "auto").requested is None
    assert narrowed(ResourceType.RAW, "video").requested is ResourceType.RAW
