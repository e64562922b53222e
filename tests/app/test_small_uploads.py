"""What a small upload is spared: a look-up of its grant, and a loop that stands still."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.asgi import END, FORM, Answer, part, parts_of
from tests.world import OTHER_PNG, QuickWorld, World
from uponce.adapters.database import keys
from uponce.adapters.database.committer import Records
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.store.packs import Packs
from uponce.app.ports import NewEffect
from uponce.app.uploading import pipeline
from uponce.core.policy import Limits
from uponce.core.values import Digest, GrantRecord


@pytest.fixture
def world(quick_path: Path) -> Iterator[World]:
    world = QuickWorld(quick_path)
    world.whole_bodies = True
    yield world
    world.close()


def test_only_a_grant_that_was_tried_before_is_looked_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look-up spares the bytes of a replay. A new grant is not in the ledger, nearly always."""
    asked: list[bytes] = []
    find = Records.find_grant

    def noted(records: Records, key: bytes) -> GrantRecord | None:
        asked.append(key)
        return find(records, key)

    monkeypatch.setattr(Records, "find_grant", noted)
    assert (world.upload(world.sign()).status, len(asked)) == (200, 0)
    fields = world.sign()
    assert (world.upload(fields).status, len(asked)) == (200, 0)
    monkeypatch.setattr(Packs, "_append", None)
    for _ in range(3):  # once it is known to be used up, nothing is looked up either
        assert (world.upload(fields, OTHER_PNG).code, len(asked)) == ("signature_used", 1)


def test_the_keys_of_a_group_are_looked_up_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[list[tuple[str, str]]] = []
    load = Records.load

    def noted(records: Records, named: Any) -> None:
        loaded.append(list(named))
        load(records, named)

    monkeypatch.setattr(Records, "load", noted)
    assert world.upload(world.sign()).status == 200
    assert world.upload({"timestamp": "1"}).code == "missing_parameter"
    assert loaded == [[(world.browser.api_key, "demo")], []]


def test_a_group_of_refusals_writes_no_bytes(world: World) -> None:
    world.swap(put_group=lambda _: pytest.fail("it wrote"))
    assert forged(world, "demo").code == "unknown_api_key"


def test_a_small_upload_leaves_its_effects(world: World) -> None:
    world.swap(after_commit=[lambda spec, cloud: NewEffect("notify", f"{cloud}/{spec.naming.public_id}")])
    assert world.upload(world.sign({"public_id": "cat"})).status == 200
    assert world.sql("SELECT receiver = 'demo/cat' FROM outbox") == 1


def test_a_replay_that_this_server_has_not_seen_before_leaves_no_bytes(world: World) -> None:
    """The commit refuses it, and its bytes go again."""
    fields = world.sign()
    assert world.upload(fields).status == 200
    stored = world.traces().blobs
    world.swap()
    assert world.upload(fields, OTHER_PNG).code == "signature_used"
    assert world.traces().blobs == stored


def test_a_replay_under_another_idempotency_key_stores_no_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no repeat: nothing is stored under its key. A sender could have each body written, synced and deleted."""
    fields = world.sign()
    first = world.upload(fields, headers={"idempotency-key": "first"})
    assert first.status == 200
    monkeypatch.setattr(Packs, "_append", None)
    for number in range(2):
        refused = world.upload(fields, OTHER_PNG, headers={"idempotency-key": f"another-{number}"})
        assert refused.code == "signature_used"
    monkeypatch.undo()
    assert world.upload(fields, headers={"idempotency-key": "first"}).body == first.body
    other = world.upload(fields, OTHER_PNG, headers={"idempotency-key": "first"})
    assert other.code == "idempotency_key_reused"


def test_an_upload_without_an_idempotency_key_has_no_answer_looked_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Records, "find_reply", None)
    fields = world.sign()
    assert [world.upload(fields).code for _ in range(3)] == ["ok", "signature_used", "signature_used"]


@pytest.mark.parametrize("headers", [{}, {"idempotency-key": "another"}], ids=["without a key", "with another key"])
@pytest.mark.parametrize("forgets", [False, True], ids=["looked up", "at the commit"])
def test_refusals_of_replays_are_counted_beyond_a_number(
    world: World, headers: dict[str, str], *, forgets: bool
) -> None:
    """The look-up refuses a replay here before its bytes are stored. The commit refuses one that is new here."""
    limits = Limits(refusals_per_grant=3)
    world.swap(limits=limits)
    fields = world.sign()
    assert world.upload(fields, headers={"idempotency-key": "first"}).status == 200
    for _ in range(10):
        if forgets:
            world.swap(limits=limits)
        assert world.upload(fields, OTHER_PNG, headers=headers).code == "signature_used"
    assert world.sql("SELECT count(*) FROM audit WHERE event = 'refused'") == 4
    assert world.sql("SELECT sum(count) FROM audit WHERE event = 'refused'") == 10


def forged(world: World, cloud: str) -> Answer:
    """An upload with an API key that does not exist."""
    fields = world.sign(key=replace(world.browser, api_key="999"))
    body = (parts_of(fields), part("file", OTHER_PNG, "cat.png"), END)
    return world.request("POST", f"/v1_1/{cloud}/auto/upload", headers=FORM, chunks=body)


@pytest.mark.parametrize("whole", [True, False])
def test_an_unknown_api_key_costs_the_same_however_many_keys_the_cloud_has(
    world: World, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Anyone can send one, and the thread that commits the uploads of others looks it up."""
    decrypted: list[str] = []
    real = AesSecretBox.decrypt

    def noted(box: AesSecretBox, cipher: bytes, context: str) -> str:
        decrypted.append(context)
        return real(box, cipher, context)

    monkeypatch.setattr(AesSecretBox, "decrypt", noted)
    world.whole_bodies = whole
    assert forged(world, "demo").code == "unknown_api_key"
    assert forged(world, "nowhere").code == "invalid_cloud_name"
    assert decrypted == []


def test_only_clouds_that_exist_are_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone can name others, without end."""
    asked: list[str] = []
    real = keys.has_cloud

    def noted(cloud: str) -> Any:
        asked.append(cloud)
        return real(cloud)

    monkeypatch.setattr(keys, "has_cloud", noted)
    for cloud in ("demo", "nowhere", "demo", "nowhere"):
        forged(world, cloud)
    assert asked == ["demo", "nowhere", "nowhere"]


def test_only_api_keys_that_exist_are_remembered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may have 64 KiB."""
    asked: list[str] = []
    real = keys.find

    def noted(secrets: keys.SecretBox, api_key: str) -> Any:
        asked.append(api_key)
        return real(secrets, api_key)

    monkeypatch.setattr(keys, "find", noted)
    for _ in range(2):
        forged(world, "demo")
        world.upload(world.sign({"timestamp": "1"}))  # stale: no commit changes the database
    assert asked == ["999", world.browser.api_key, "999"]


def test_a_large_body_is_hashed_by_a_thread(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting may be raised, and the loop must not stand still."""
    threads: list[str] = []
    real = pipeline._digest_of

    def noted(data: bytes | memoryview) -> Digest:
        threads.append(threading.current_thread().name)
        return real(data)

    monkeypatch.setattr(pipeline, "_digest_of", noted)
    world = QuickWorld(quick_path, limits=Limits(small_body_bytes=4 * 1024 * 1024))
    world.whole_bodies = True
    for size in (1024 * 1024, 1024 * 1024 + 1):
        assert world.upload(world.sign(), bytes(size), kind="raw").status == 200
    world.close()
    assert [name == "MainThread" for name in threads] == [True, False]


def test_the_memory_of_grants_has_a_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_MOST_SEEN", 3)
    used = pipeline.Pipeline(world.services)
    sizes = []
    for number in range(8):
        used._was_tried(bytes([number]))
        sizes.append(len(used._seen))
    assert max(sizes) == 3
    assert used._was_tried(bytes([7])) is True
