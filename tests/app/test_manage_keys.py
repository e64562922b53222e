"""Keys that come with their secrets: what is added, what is left as it is, and what could not be safe."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.world import QuickWorld, World, create_key
from uponce.app.manage_clouds import create_cloud, find_former_keys, preset_upstream, set_upstream, still_accepted
from uponce.app.manage_keys import Conflict, import_keys, playground_key, renew_keys, revoke_key, rotate_key, set_up
from uponce.core.errors import InvalidParameter, SettingRefused
from uponce.core.values import Algorithm, ApiKey, GivenKey, KeyScope, KeyUses, Upstream

KEY = ApiKey("123456789012345", "demo", ("a-secret-of-some-backend",), KeyUses.ONCE, KeyScope.UPLOAD, 600)


@pytest.fixture
def world(tmp_path: Path) -> Any:
    world = QuickWorld(tmp_path)
    yield world
    world.close()


def bring(world: World, *keys: ApiKey) -> tuple[list[str], list[Conflict]]:
    added, conflicts = asyncio.run(import_keys(world.services, map(GivenKey, keys)))
    return [key.api_key for key in added], conflicts


def known(world: World) -> ApiKey:
    found = asyncio.run(world.database.find_key(KEY.api_key))
    assert found is not None
    return found


@pytest.mark.parametrize("cloud", ["v1_1", "tus", "playground"])
def test_no_cloud_is_made_whose_files_have_no_address_or_do_not_stay(world: World, cloud: str) -> None:
    for make in (
        import_keys(world.services, [GivenKey(replace(KEY, cloud=cloud))]),
        create_key(world.services, cloud),
        create_cloud(world.services, cloud, None),
    ):
        with pytest.raises(InvalidParameter, match=f"Cloud name '{cloud}' is taken"):
            asyncio.run(make)


def test_a_server_with_keys_of_a_cloud_called_playground_makes_no_more_keys(world: World) -> None:
    """An older release accepted the name, and made two more keys at each start."""
    world.sql("DELETE FROM api_keys")
    asyncio.run(world.database.add_key(replace(KEY, cloud="playground"), new=True))
    assert asyncio.run(set_up(world.services, "playground")) == ()


def test_a_new_key_is_added_once_and_works(world: World) -> None:
    assert bring(world, KEY) == ([KEY.api_key], [])
    assert bring(world, KEY) == ([], [])
    fields = world.sign(key=KEY)
    assert [world.upload(fields).code for _ in range(2)] == ["ok", "signature_used"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"secrets": ("another-secret-of-the-backend",)}, "secret"),
        ({"uses": KeyUses.UNLIMITED}, "policy (uses, scope or window)"),
        ({"scope": KeyScope.ALL}, "policy (uses, scope or window)"),
        ({"window": 601}, "policy (uses, scope or window)"),
        ({"algorithms": (Algorithm.SHA256,)}, "signature_algorithm"),
        ({"cloud": "elsewhere"}, "cloud"),
    ],
)
def test_a_key_that_exists_is_not_changed(world: World, change: dict[str, Any], what: str) -> None:
    bring(world, KEY)
    before = known(world)
    assert bring(world, replace(KEY, **change)) == ([], [Conflict(KEY.api_key, what)])
    assert known(world) == before


def test_a_key_of_sha256_only_is_not_changed(world: World) -> None:
    key = replace(KEY, algorithms=(Algorithm.SHA256,))
    assert bring(world, key) == ([KEY.api_key], [])
    assert bring(world, key) == ([], [])
    assert bring(world, KEY) == ([], [Conflict(KEY.api_key, "signature_algorithm")])
    assert known(world).algorithms == key.algorithms


def test_a_key_that_names_no_window_keeps_its_window(world: World) -> None:
    """Whatever UPONCE_WINDOW says by then. Other differences come first."""
    bring(world, KEY)
    given = GivenKey(replace(KEY, window=601), names_window=False)
    added, (conflict,) = asyncio.run(import_keys(world.services, [given]))
    assert (added, known(world).window) == ([], 600)
    assert conflict.of_settings == (
        f"API key {KEY.api_key} differs between settings and database: window. This key keeps its window of 600 "
        "seconds: UPONCE_WINDOW counts for new keys. Add window=600 to the key in UPONCE_KEYS."
    )
    other = replace(given, key=replace(given.key, scope=KeyScope.ALL))
    _, conflicts = asyncio.run(import_keys(world.services, [other]))
    assert conflicts == [Conflict(KEY.api_key, "policy (uses, scope or window)")]


def test_a_revoked_key_stays_revoked(world: World) -> None:
    bring(world, KEY)
    asyncio.run(revoke_key(world.services, KEY.api_key))
    assert bring(world, KEY) == ([], [Conflict(KEY.api_key, "state: it is revoked")])
    assert known(world).revoked_at is not None


def test_a_rotated_key_is_the_same_key_while_its_old_secret_works(world: World) -> None:
    bring(world, KEY)
    rotated = asyncio.run(rotate_key(world.services, KEY.api_key, 60))
    assert bring(world, KEY) == ([], [])
    world.clock.time += 61
    assert bring(world, KEY) == ([], [Conflict(KEY.api_key, "secret")])
    assert known(world).secrets == rotated.secrets[:1]


def test_an_older_secret_that_works_is_kept(world: World) -> None:
    """Its signatures may be unused. Only `--overlap 0` ends it: a secret leaked."""
    bring(world, KEY)
    rotate = partial(rotate_key, world.services, KEY.api_key, keeps_older=True)
    secrets = asyncio.run(rotate(60)).secrets
    for overlap in (None, 60):
        with pytest.raises(SettingRefused, match="still works"):
            asyncio.run(rotate(overlap))
    assert known(world).secrets == secrets
    world.clock.time += 61
    assert asyncio.run(rotate(60)).secrets[1:] == secrets[:1]
    assert len(asyncio.run(rotate(0)).secrets) == 1


@pytest.mark.parametrize("overlap", [None, 0])
def test_of_two_rotations_at_once_the_later_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, overlap: int | None
) -> None:
    """Both ended the older secret, and with it the one that all back ends use."""
    bring(world, KEY)
    rotate, first = world.database.rotate_key, "the-secret-of-the-first-one"

    async def rotate_second(api_key: str, secret: str, overlap: int, present: str | None) -> ApiKey | None:
        assert await rotate(api_key, first, overlap, present)
        return await rotate(api_key, secret, overlap, present)

    monkeypatch.setattr(world.database, "rotate_key", rotate_second)
    with pytest.raises(SettingRefused, match="came first"):
        asyncio.run(rotate_key(world.services, KEY.api_key, overlap, keeps_older=True))
    assert known(world).secrets == (first, *(KEY.secrets if overlap is None else ()))


def test_a_frozen_database_shows_no_new_secret(world: World) -> None:
    """It would not be kept, so it would never work."""
    bring(world, KEY)
    asyncio.run(world.database.freeze())
    shown: list[ApiKey] = []
    with pytest.raises(SettingRefused, match="frozen"):
        asyncio.run(rotate_key(world.services, KEY.api_key, show=shown.append))
    assert shown == []
    assert known(world).secrets == KEY.secrets


def test_a_frozen_database_gets_no_new_secret_key(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost() -> dict[str, str]:
        return {KEY.api_key: "It cannot be decrypted."}

    bring(world, KEY)
    asyncio.run(world.database.freeze())
    monkeypatch.setattr(world.database, "unreadable_keys", lost)
    made: list[str] = []
    with pytest.raises(SettingRefused, match="frozen"):
        asyncio.run(renew_keys(world.services, lambda: made.append("key"), confirmed=True, show=lambda key: None))
    assert made == []


@pytest.mark.parametrize("overlap", [0, 60])
def test_a_secret_before_a_rotation_is_not_that_of_another_key(world: World, overlap: int) -> None:
    """A signature that was made and used with it would work once more."""
    bring(world, KEY)
    asyncio.run(rotate_key(world.services, KEY.api_key, overlap))
    world.clock.time += overlap + 1
    with pytest.raises(InvalidParameter, match=f"API keys other and {KEY.api_key} have the same secret"):
        bring(world, replace(KEY, api_key="other"))
    assert bring(world, KEY) == ([], [Conflict(KEY.api_key, "secret")])


@pytest.mark.parametrize("secret", ["{0}", "x{0}", "{0:.25}"])
def test_no_secret_ends_like_that_of_another_key(world: World, secret: str) -> None:
    """Nor among the keys that come together; none of them is added then."""
    theirs = world.browser.secrets[0]
    twin = replace(KEY, secrets=(secret.format(theirs[::-1])[::-1] if secret != "x{0}" else f"x{theirs}",))
    other = replace(KEY, api_key="other", secrets=("some-other-secret-of-mine",))
    with pytest.raises(InvalidParameter, match="have the same secret, or one secret ends with the other"):
        bring(world, other, twin)
    with pytest.raises(InvalidParameter, match="API keys 2 and other have the same secret"):
        bring(world, other, replace(other, api_key="2"))
    assert asyncio.run(world.database.find_key("other")) is None


def test_a_key_that_comes_back_after_a_restore_is_fenced(world: World) -> None:
    """Its signatures may be spent. The secrets of keys that uponce makes are new, so those keys work at once."""
    mark = asyncio.run(world.database.fence(300))
    bring(world, KEY)
    assert world.upload(world.sign({"timestamp": mark}, key=KEY)).code == "stale_request"
    made = [*asyncio.run(create_cloud(world.services, "made", None)), asyncio.run(playground_key(world.services))]
    upstream = Upstream("acme", "98765", "a-secret-of-some-account")
    same, server = asyncio.run(create_cloud(world.services, "relayed", upstream, same_keys=True))
    marks = {key.api_key: key.watermark for key in asyncio.run(world.database.list_keys())}
    assert [marks[key.api_key] for key in (KEY, same, *made, server)] == [mark, mark, None, None, None, None]


def test_a_key_with_the_former_secret_of_an_account_is_named(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """It goes on accepting the secret, which may have leaked."""
    account = Upstream("acme", "98765", "a-secret-of-some-account")
    renewed = replace(account, api_key="43210", secret="another-secret-of-it")
    same, _ = asyncio.run(create_cloud(world.services, "relayed", account, same_keys=True))
    for following, former in ((renewed, [same.api_key]), (replace(account, window=60), []), (None, [])):
        assert asyncio.run(find_former_keys(world.services, "relayed", following)) == former
    asyncio.run(preset_upstream(world.services, "relayed", account))
    assert not caplog.text
    asyncio.run(preset_upstream(world.services, "relayed", renewed))
    assert still_accepted(same.api_key) in caplog.text
    asyncio.run(set_upstream(world.services, "relayed", None))  # the first step after a leak
    for following, former in ((renewed, [same.api_key]), (account, []), (None, [])):
        assert asyncio.run(find_former_keys(world.services, "relayed", following)) == former
    asyncio.run(preset_upstream(world.services, "relayed", account))
    asyncio.run(revoke_key(world.services, same.api_key))
    assert asyncio.run(find_former_keys(world.services, "relayed", renewed)) == []


def test_a_key_that_differs_from_that_of_the_copy_keeps_the_fence(world: World) -> None:
    bring(world, KEY)
    mark = asyncio.run(world.database.fence(300))
    for change in ({"secrets": ("another-secret-of-the-backend",)}, {"scope": KeyScope.ALL}, {"cloud": "elsewhere"}):
        bring(world, replace(KEY, **change))
    assert known(world) == replace(KEY, created_at=known(world).created_at, watermark=mark)


def test_two_servers_may_bring_the_same_key_at_once(world: World) -> None:
    """Each has looked before the other one added it."""
    blind = Blind(world.database)
    bring(world, KEY)
    services = replace(world.services, database=blind)
    assert asyncio.run(import_keys(services, [GivenKey(KEY)])) == ([], [])
    changed = replace(KEY, secrets=("another-secret-of-the-backend",))
    assert asyncio.run(import_keys(services, [GivenKey(changed)])) == ([], [Conflict(KEY.api_key, "secret")])


class Blind:
    """A database that has not seen yet what others have just added."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def list_keys(self, cloud: str | None = None) -> Sequence[ApiKey]:
        return ()


def test_a_first_start_that_ends_between_its_keys_makes_both_at_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.sql("DELETE FROM api_keys")
    real, added = world.database.add_key, list[int]()

    async def dies_at_the_second(*keys: ApiKey) -> None:
        if added:
            raise KeyboardInterrupt
        added.append(len(keys))
        await real(*keys)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(type(world.database), "add_key", lambda _, *keys, new: dies_at_the_second(*keys))
        asyncio.run(set_up(world.services, "media"))
    asyncio.run(set_up(world.services, "media"))
    assert [key.name for key in asyncio.run(world.database.list_keys("media"))] == ["browser", "server"]
