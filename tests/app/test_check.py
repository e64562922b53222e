"""What a start-up and `uponce doctor` say of a storage that fails: in the operator's words, with the cure."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.failing import Failing, FailingSpool
from tests.world import World
from uponce.app.check import check_parts, check_ready, check_storage
from uponce.core.errors import DatabaseUnavailable, SettingRefused, StorageFull, StorageUnavailable


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_a_storage_that_cannot_be_written_is_refused_with_the_cure(world: World) -> None:
    failure = StorageUnavailable("Send it again.", detail="[Errno 30] Read-only file system: 'x'")
    world.swap(blobs=FailingSpool(world.blobs, before={"write": failure}))
    with pytest.raises(
        SettingRefused, match=r"Read-only file system: 'x'\. Let the server write it.*read-write"
    ) as told:
        asyncio.run(check_storage(world.services, on_disk=True))
    assert "Send it again" not in str(told.value)


@pytest.mark.parametrize("said", ["No credentials were found: set them in the environment.", "Generic S3 error"])
def test_a_bucket_that_cannot_be_used_gets_no_cure_for_a_disk(world: World, said: str) -> None:
    world.swap(blobs=FailingSpool(world.blobs, before={"write": StorageUnavailable("Send it again.", detail=said)}))
    with pytest.raises(SettingRefused) as told:
        asyncio.run(check_storage(world.services, on_disk=False))
    assert str(told.value) == f"UPONCE_STORAGE cannot be used: {said.removesuffix('.')}."


def test_a_full_storage_is_a_warning_with_the_cure(world: World) -> None:
    """The server still delivers; until there is room, it refuses uploads."""
    full = StorageFull("Send it again later.", detail="[Errno 28] No space left on device")
    world.swap(blobs=FailingSpool(world.blobs, before={"write": full}))
    assert asyncio.run(check_storage(world.services, on_disk=True)) == (
        "UPONCE_STORAGE is full: [Errno 28] No space left on device. Free space. Until then, uponce refuses every "
        "upload."
    )
    world.swap(blobs=world.blobs)
    assert asyncio.run(check_storage(world.services, on_disk=True)) is None


def test_clients_read_other_words_of_a_failing_part_than_the_operator(world: World) -> None:
    failure = DatabaseUnavailable("Send the same request again.", detail="attempt to write a readonly database")
    world.swap(database=Failing(world.database, before={"ping": failure}))
    assert asyncio.run(check_ready(world.services))["database"] == "Send the same request again."
    found = asyncio.run(check_parts(world.services))["database"]
    assert found is not None
    assert found.for_operator == "attempt to write a readonly database"
