"""What any Database must do, run on every back end: assets, their versions, and blobs that are swept."""

import asyncio
from dataclasses import replace

import pytest

from tests.contract.databases import (
    CALLER,
    START,
    Backend,
    attempt,
    draft,
    grant,
    publish,
    run,
)
from uponce.app.ports import Committed, Database
from uponce.core.errors import (
    BlobCondemned,
    InvalidParameter,
    SignatureRevoked,
)
from uponce.core.values import (
    AssetName,
    AudioFacts,
    AuditEvent,
    Caller,
    DeliveryType,
    MediaFacts,
    ResourceType,
    TimedFacts,
    VideoFacts,
)


def test_an_overwrite_replaces_the_bytes_and_keeps_the_identity(backend: Backend, database: Database) -> None:
    first = run(publish(database, "a"))
    backend.clock.time += 10
    second = run(publish(database, "b"))
    assert second.overwritten
    assert second.unneeded_blob == "blob-a"
    assert (second.asset.asset_id, second.asset.created_at) == (first.asset.asset_id, START)
    assert (second.asset.version, second.asset.blob_key) == (START + 10, "blob-b")
    assert second.asset.version_id != first.asset.version_id
    assert run(database.find_asset(first.asset.name)) == second.asset
    for find in (database.find_commit, database.confirm_commit):
        assert run(find("blob-a")) is None
        assert run(find("blob-b")) == second.asset


def test_versions_rise_also_within_a_second_and_when_the_clock_steps_back(backend: Backend, database: Database) -> None:
    versions = [run(publish(database, "a")).asset.version]
    for number, step in enumerate([0, 0.4, -5000, 0, 7000]):
        backend.clock.time += step
        versions.append(run(publish(database, f"n{number}")).asset.version)
    assert versions == sorted(set(versions))
    assert versions[1] - versions[0] == versions[3] - versions[2] == 1, "where the clock gives none, the next number"


def test_without_overwrite_the_present_asset_is_the_answer_and_the_grant_is_spent(database: Database) -> None:
    first = run(publish(database, "a"))
    second = run(publish(database, "b", overwrite=False))
    assert second.existing
    assert not second.overwritten
    assert second.asset == first.asset
    assert second.unneeded_blob == "blob-b"
    assert run(attempt(database, grant("b"), draft("other", blob="c"))) == "signature_used"
    (line,) = run(database.history(grant("b").key, 1))
    assert (line.event, line.code, line.asset_id) == (AuditEvent.SPENT, "existing", first.asset.asset_id)
    assert run(database.history(grant("a").key, 10))[0].code == ""


def test_everything_known_of_an_asset_comes_back_as_it_went_in(database: Database) -> None:
    sound = AudioFacts("aac", 128_000, 44_100, 2, "stereo")
    film = VideoFacts("h264", "High", 31, "yuv420p", None, "16:9", "1/90000")
    facts = MediaFacts(ResourceType.VIDEO, "mp4", 1280, 720, 1, TimedFacts(10.5, 900_000, 29.97, 315, 90, sound, film))
    rich = draft(
        blob="rich",
        name=AssetName("demo", ResourceType.VIDEO, DeliveryType.AUTHENTICATED, "films/one"),
        facts=facts,
        tags=("a", "b,c", ""),
        context=(("alt", "x=y|z"), ("caption", "")),
        original_filename="My film",
    )
    committed = run(database.commit(grant("a"), rich, CALLER)).asset
    found = run(database.find_asset(rich.asset.name))
    assert found == committed
    assert found is not None
    assert found == replace(rich.asset, version=found.version, created_at=found.created_at)


ODD = [
    "ünï/cødé",
    "e\u0301 or \u00e9",
    "ZWJ 👩‍👩‍👧",
    "a'b\"c;--",
    "%_*[x]",
    "nul\x00inside",
    "tab\tnew\nline",
    "x" * 255,
    "CASE",
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_characters_name_one_asset_each_and_come_back(database: Database, odd: str) -> None:
    filled = draft(odd, blob="odd", overwrite=False, tags=(odd,), context=((odd, odd),), original_filename=odd)
    asset = run(database.commit(grant("a"), filled, Caller(odd, odd))).asset
    assert run(database.find_asset(filled.asset.name)) == asset
    assert (asset.name.public_id, asset.tags, asset.original_filename) == (odd, (odd,), odd)
    line = run(database.history(grant("a").key, 1))[0]
    assert (line.public_id, line.caller) == (odd, Caller(odd[:45], odd)), "no address is longer than IPv6's"
    for other in {odd + " ", odd.lower() + "_", odd.swapcase(), odd[:1]} - {odd}:
        assert run(database.find_asset(replace(filled.asset.name, public_id=other))) is None


def test_a_lone_surrogate_is_refused_and_spends_nothing(database: Database) -> None:
    """It is no character, and no database could give it back."""
    broken = draft(blob="a", original_filename="\ud800")
    assert run(attempt(database, grant("a"), broken)) == "invalid_parameter"
    with pytest.raises(InvalidParameter):
        run(database.find_asset(draft("\udcff", blob="x").asset.name))
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"


def test_equal_public_ids_of_other_kinds_types_and_clouds_are_other_assets(database: Database) -> None:
    name = draft(blob="x").asset.name
    others = [
        replace(name, cloud="other"),
        replace(name, resource_type=ResourceType.RAW),
        replace(name, type=DeliveryType.PRIVATE),
    ]
    run(publish(database, "a"))
    assert [run(database.find_asset(other)) for other in others] == [None, None, None]
    for number, other in enumerate(others):
        committed = run(database.commit(grant(f"n{number}"), draft(blob=f"b{number}", name=other), CALLER))
        assert not committed.overwritten


def test_a_condemned_blob_can_never_be_committed(database: Database) -> None:
    assert run(database.condemn(["blob-a", "blob-x"])) == ["blob-a", "blob-x"]
    with pytest.raises(BlobCondemned, match=r"The signature is not spent\. Upload the file again"):
        run(publish(database, "a"))
    assert run(database.find_grant(grant("a").key)) is None
    assert run(attempt(database, grant("a"), draft(blob="fresh bytes"))) == "ok"


def test_the_upload_of_a_revoked_signature_is_not_asked_for_again(database: Database) -> None:
    """Its bytes are swept, and its signature is dead: the final reason counts."""
    run(database.revoke_grant(grant("a"), CALLER))
    assert run(database.condemn(["blob-a"])) == ["blob-a"]
    with pytest.raises(SignatureRevoked):
        run(publish(database, "a"))


def test_a_committed_blob_can_never_be_condemned(database: Database) -> None:
    run(publish(database, "a"))
    assert run(database.condemn(["blob-a", "orphan"])) == ["orphan"]
    assert run(attempt(database, grant("b"), draft("dog", blob="blob-b"))) == "ok"
    assert run(database.condemn(["blob-a", "blob-b"])) == []


def test_what_is_named_can_be_told_without_condemning(database: Database) -> None:
    run(publish(database, "a"))
    assert run(database.unnamed(["blob-a", "orphan"])) == ["orphan"]
    assert run(database.unnamed([])) == []
    assert run(database.condemned(["orphan"])) == []


def test_condemning_again_says_the_same(database: Database) -> None:
    """A sweeper that died between condemning and deleting finds its work again."""
    assert run(database.condemn(["orphan"])) == run(database.condemn(["orphan"])) == ["orphan"]


def test_the_blob_of_a_replaced_version_can_be_condemned(database: Database) -> None:
    run(publish(database, "a"))
    run(publish(database, "b"))
    assert run(database.condemn(["blob-a", "blob-b"])) == ["blob-a"]


def test_a_sweeper_and_a_commit_never_both_win(backend: Backend, database: Database) -> None:
    sweeper = backend.server()

    async def both(number: int) -> None:
        subject = draft(f"p{number}", blob=f"b{number}")
        told, condemned = await asyncio.gather(
            attempt(database, grant(f"n{number}"), subject), sweeper.condemn([subject.asset.blob_key])
        )
        assert (told, list(condemned)) in [("ok", []), ("attempt_expired", [subject.asset.blob_key])]

    async def many() -> None:
        await asyncio.gather(*(both(number) for number in range(30)))

    run(many())


def test_overwrites_at_once_on_two_servers_each_replace_another_version(backend: Backend, database: Database) -> None:
    """No version is given twice, and each blob except the last one is unneeded in one answer."""
    servers = [database, backend.server()]

    async def many() -> list[Committed]:
        return await asyncio.gather(*(publish(servers[number % 2], f"n{number}") for number in range(40)))

    committed = run(many())
    assert len({one.asset.version for one in committed}) == 40
    assert len({one.asset.asset_id for one in committed}) == 1
    last = run(database.find_asset(committed[0].asset.name))
    assert last is not None
    replaced = [one.unneeded_blob for one in committed if one.overwritten]
    assert sorted(map(str, replaced)) == sorted(f"blob-n{n}" for n in range(40) if f"blob-n{n}" != last.blob_key)


def test_the_surplus_of_a_cloud_is_what_its_newest_files_and_bytes_leave_out(
    backend: Backend, database: Database
) -> None:
    """Four files of three bytes, one a second. The newest file of another cloud never counts."""

    async def put(name: str, cloud: str = "demo") -> None:
        full = replace(draft(name, blob="x").asset.name, cloud=cloud)
        await database.commit(grant(name), draft(blob=f"blob-{name}", name=full), CALLER)

    async def fill() -> None:
        for name in "abcd":
            backend.clock.time += 1
            await put(name)
        await put("e", "other")

    def surplus(*, files: int = 9, size: int = 99, seconds: int = 99) -> list[str]:
        found = run(database.list_surplus("demo", files=files, size=size, seconds=seconds))
        return [asset.name.public_id for asset in found]

    run(fill())
    assert surplus() == []
    assert (surplus(files=4), surplus(files=2)) == ([], ["a", "b"])
    assert (surplus(size=12), surplus(size=11), surplus(size=6)) == ([], ["a"], ["a", "b"])
    assert (surplus(seconds=4), surplus(seconds=2)) == ([], ["a", "b"])
    assert surplus(files=1, seconds=2) == ["a", "b", "c"]
