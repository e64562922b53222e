"""Spent stays spent, in any spelling; and the check that says so can fail."""

import asyncio
from collections.abc import Mapping

import pytest

from tests.app.uploads import CALLER, attempt
from tests.world import OTHER_PNG, QuickWorld, World
from uponce.app import authorise
from uponce.app.manage_keys import revoke_key, rotate_key
from uponce.app.signed_calls import SignedCall, destroy
from uponce.core.signature import Signer, grant_key, verify
from uponce.core.values import ApiKey, ResourceType


def test_after_an_overwrite(world: World) -> None:
    first = world.sign({"public_id": "a"})
    assert attempt(world, first) == "ok"
    assert attempt(world, world.sign({"public_id": "a"}), OTHER_PNG) == "ok"
    assert attempt(world, first) == "signature_used"


def test_after_the_asset_is_deleted(world: World) -> None:
    fields = world.sign({"public_id": "a"})
    assert attempt(world, fields) == "ok"
    request = SignedCall("demo", ResourceType.IMAGE, world.sign({"public_id": "a"}, key=world.server), CALLER)
    assert asyncio.run(destroy(world.services, request))
    assert attempt(world, fields) == "signature_used"
    assert world.traces().assets == 0


def test_after_a_restart_and_with_the_clock_set_back(world: World) -> None:
    fields = world.sign({"timestamp": int(world.clock.time) - 60})
    assert attempt(world, fields) == "ok"
    world.clock.time -= 60
    assert attempt(world, fields) == "signature_used"
    again = QuickWorld(world.path.parent)
    again.clock.time = world.clock.time
    assert attempt(again, fields) == "signature_used"
    again.close()


def test_after_the_key_was_rotated(world: World) -> None:
    spent, unspent = world.sign(), world.sign()
    assert attempt(world, spent) == "ok"
    asyncio.run(rotate_key(world.services, world.browser.api_key))
    assert attempt(world, spent) == "signature_used"
    assert attempt(world, unspent) == "ok"
    world.clock.time += world.browser.window
    assert attempt(world, world.sign()) == "invalid_signature"


def test_a_revoked_key_uploads_nothing_more(world: World) -> None:
    fields = world.sign()
    asyncio.run(revoke_key(world.services, world.browser.api_key))
    with world.untouched():
        assert attempt(world, fields) == "unknown_api_key"


def spellings(world: World) -> list[dict[str, str]]:
    """One grant, signed with SHA-1 and with SHA-256, its fields in either order."""
    params = {"folder": "cats", "tags": "a,b"}
    nonce = {"nonce": "one"}
    sha1 = world.sign(params | nonce)
    sha256 = world.sign(params | nonce, algorithm="sha256")
    assert len(sha1["signature"]) == 40
    assert len(sha256["signature"]) == 64
    return [
        sha1,
        sha256,
        dict(reversed(sha1.items())),
        sha256 | {"resource_type": "auto", "cloud_name": "demo", "stream": "true"},
    ]


def check_one_grant_is_spent_once(world: World) -> None:
    answers = [attempt(world, fields) for fields in spellings(world)]
    assert answers == ["ok", "signature_used", "signature_used", "signature_used"]
    assert world.traces().grants == 1


def test_one_grant_in_any_spelling_is_spent_once(world: World) -> None:
    check_one_grant_is_spent_once(world)


def test_the_check_goes_red_when_the_grant_is_known_by_the_received_hex(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong key K: what was received, instead of what it stands for."""
    received: list[str] = []

    def spying_verify(params: Mapping[str, str], key: ApiKey) -> tuple[str, Signer]:
        received.append(params["signature"])
        return verify(params, key)

    monkeypatch.setattr(authorise, "verify", spying_verify)
    monkeypatch.setattr(
        authorise, "grant_key", lambda cloud, api_key, at, _: grant_key(cloud, api_key, at, received[-1])
    )
    with pytest.raises(AssertionError, match="signature_used"):
        check_one_grant_is_spent_once(world)
    assert world.traces().assets == 2
