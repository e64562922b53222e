"""The playground keeps so many files and bytes, for so long. A deleted file leaves no bytes. Other clouds lose none."""

import asyncio
from dataclasses import replace
from urllib.parse import urlencode

import pytest

from tests.app.failing import Failing
from tests.app.uploads import attempt
from tests.tus import VERSION, metadata
from tests.world import World, assert_accepted
from uponce.app.manage_keys import playground_key
from uponce.app.tidy_playground import Kept, tidy_playground
from uponce.core.errors import DatabaseUnavailable, SettingRefused

AMPLE = Kept(files=9, bytes=1000, seconds=3600, file_bytes=100)


@pytest.fixture(autouse=True)
def of_the_owner(world: World) -> str:
    """A file of another cloud, older than all others."""
    assert attempt(world, world.sign()) == "ok"
    world.clock.time += 1
    return "stays"


def visit(world: World, name: str, size: int = 10) -> str:
    """Upload as a visitor does; the path of the stored file."""
    key = asyncio.run(playground_key(world.services))
    fields = world.sign({"public_id": name}, key=key)
    query = "&".join(f"{field}={value}" for field, value in fields.items())
    answer = world.request("PUT", f"/v1_1/playground/raw/upload?{query}", chunks=[bytes(size)])
    assert answer.status == 200, answer.body
    world.clock.time += 1
    return f"/playground/raw/upload/{name}"


def tidy(world: World, kept: Kept) -> int:
    return asyncio.run(tidy_playground(world.services, kept))


def stored(world: World, paths: list[str]) -> str:
    return "".join("x" if world.get(path).status == 200 else "-" for path in paths)


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        (AMPLE, "xxxx"),
        (replace(AMPLE, files=3), "-xxx"),
        (replace(AMPLE, bytes=30), "-xxx"),
        (replace(AMPLE, bytes=29), "--xx"),
        (replace(AMPLE, seconds=2), "---x"),
    ],
)
def test_the_oldest_files_go_with_their_bytes(world: World, kept: Kept, left: str) -> None:
    paths = [visit(world, name) for name in "abcd"]
    before = world.traces()
    assert tidy(world, kept) == left.count("-")
    assert stored(world, paths) == left
    after = world.traces()
    assert before.assets - after.assets == len(before.blobs) - len(after.blobs) == left.count("-")
    assert tidy(world, kept) == 0


def test_a_failure_deletes_nothing_and_the_next_round_deletes(world: World) -> None:
    path, kept, healthy = visit(world, "a"), replace(AMPLE, seconds=1), world.services
    world.swap(database=Failing(world.database, before={"delete": DatabaseUnavailable("down")}))
    with pytest.raises(DatabaseUnavailable):
        tidy(world, kept)
    world.use(healthy)
    assert stored(world, [path]) == "x"
    assert tidy(world, kept) == 1
    assert stored(world, [path]) == "-"


def test_unfinished_uploads_end_that_could_exceed_the_bytes(world: World) -> None:
    """Five of at most 100 bytes each, where 300 bytes are kept. The owner's own one goes on."""
    key = asyncio.run(playground_key(world.services))

    def begin(cloud: str, fields: dict[str, str]) -> str:
        headers = {**VERSION, "upload-length": "100", "upload-metadata": metadata(fields)}
        answer = world.request("POST", f"/tus/{cloud}/", headers=headers)
        assert answer.status == 201, answer.body
        return answer.headers["location"].removeprefix("https://media.example")

    urls = [begin("playground", world.sign(key=key)) for _ in range(5)]
    urls.append(begin("demo", world.sign()))
    tidy(world, replace(AMPLE, bytes=300))
    left = [world.request("HEAD", url, headers=VERSION).status for url in urls]
    assert sorted(left[:5]) == [200, 200, 200, 404, 404]
    assert left[5] == 200


def test_files_of_a_tenant_whose_cloud_has_the_same_name_stay(world: World) -> None:
    """An older release accepted the name of this cloud."""
    path, key = visit(world, "a"), replace(world.browser, api_key="333", cloud="playground", secrets=("x" * 32,))
    asyncio.run(world.database.add_key(key, new=True))
    headers = {**VERSION, "upload-length": "100", "upload-metadata": metadata(world.sign(key=key))}
    url = world.request("POST", "/tus/playground/", headers=headers).headers["location"]
    for work in (tidy_playground(world.services, replace(AMPLE, bytes=1, seconds=0)), playground_key(world.services)):
        with pytest.raises(SettingRefused, match="cloud playground has API keys that are not the playground's: 333"):
            asyncio.run(work)
    assert stored(world, [path]) == "x"
    assert world.request("HEAD", url.removeprefix("https://media.example"), headers=VERSION).status == 200
    query = urlencode(world.sign(key=key))
    assert_accepted(world.request("PUT", f"/v1_1/playground/raw/upload?{query}", chunks=[b"b"]))


def test_it_makes_no_key_before_the_first_visit(world: World) -> None:
    assert tidy(world, AMPLE) == 0
    assert asyncio.run(world.database.list_keys("playground")) == []
