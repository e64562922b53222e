"""What any Database must do, run on every back end: pages of assets by their context."""

from dataclasses import replace
from typing import Any

import pytest

from tests.contract.databases import CALLER, Backend, draft, grant, run
from uponce.app.ports import CONTEXT_WINDOW, Database, Page
from uponce.core.errors import InvalidParameter
from uponce.core.values import Asset, DeliveryType, ResourceType

Pairs = tuple[tuple[str, str], ...]


async def put(database: Database, public_id: str, context: Pairs, **name: Any) -> None:
    full = replace(draft(public_id, blob="x").asset.name, **name)
    made = draft(blob=f"blob-{public_id}-{context}", name=full, context=context)
    await database.commit(grant(f"{public_id}-{context}"), made, CALLER)


async def page(
    database: Database, key: str, value: str | None = None, *, limit: int = 10, cursor: str | None = None
) -> Page[Asset]:
    return await database.list_by_context("demo", ResourceType.IMAGE, key, value, limit=limit, cursor=cursor)


def names(database: Database, key: str, value: str | None = None) -> list[str]:
    found = run(page(database, key, value))
    assert found.next_cursor is None
    return [asset.name.public_id for asset in found.items]


def test_assets_of_a_key_and_of_a_pair_newest_first(backend: Backend, database: Database) -> None:
    async def fill() -> None:
        await put(database, "a", (("k", "1"),))
        await put(database, "b", (("x", "k"), ("k", "2")))
        await put(database, "c", (("x", "1"),))
        await put(database, "d", ())
        await put(database, "e", (("k", "1"), ("y", "")))

    run(fill())
    assert names(database, "k") == ["e", "b", "a"]
    assert names(database, "k", "1") == ["e", "a"]
    assert names(database, "y", "") == ["e"]
    assert names(database, "1") == names(database, "k", "k") == names(database, "") == []
    (first, *_) = run(page(database, "k")).items
    assert first == run(database.find_asset(first.name))


def test_only_of_one_cloud_and_one_resource_type_but_of_every_delivery_type(database: Database) -> None:
    async def fill() -> None:
        await put(database, "a", (("k", "1"),), cloud="other")
        await put(database, "b", (("k", "1"),), resource_type=ResourceType.RAW)
        await put(database, "c", (("k", "1"),), type=DeliveryType.PRIVATE)

    run(fill())
    assert names(database, "k") == ["c"]


def test_an_overwritten_asset_is_found_by_its_new_context_in_its_old_place(database: Database) -> None:
    async def fill() -> None:
        for public_id, context in (("a", "old"), ("b", "new"), ("a", "new")):
            await put(database, public_id, ((context, "1"),))

    run(fill())
    assert names(database, "old") == []
    assert names(database, "new") == ["b", "a"]


ODD = ['"', "\\", "[", '["', ",", '","', "]", "%", "_", "nul\x00", "line\n", "ünï 😀", "e\u0301", "K"]


@pytest.mark.parametrize("odd", ODD)
def test_odd_characters_mean_themselves(database: Database, odd: str) -> None:
    async def fill() -> None:
        await put(database, "a", ((odd, "1"), ("other", odd)))
        await put(database, "b", ((f"x{odd}", f"{odd}x"), ("k", odd + "1")))

    run(fill())
    assert names(database, odd) == names(database, odd, "1") == ["a"]
    assert names(database, "other", odd) == ["a"]
    assert names(database, "k", odd) == names(database, odd.swapcase() + "_") == []


def test_the_text_of_a_pair_across_two_strings_is_no_pair(database: Database) -> None:
    """Only the strings of the rows decide, and not the JSON that holds them."""
    run(put(database, "a", (("a[", ",v"),)))
    assert names(database, ",") == []


def test_pages_join_without_gap_and_without_repetition(database: Database) -> None:
    async def fill() -> None:
        for number in range(7):
            await put(database, f"n{number}", (("k", str(number % 2)),))

    async def walk() -> list[list[str]]:
        pages, cursor = [], None
        while True:
            found = await page(database, "k", limit=3, cursor=cursor)
            pages.append([asset.name.public_id for asset in found.items])
            if found.next_cursor is None:
                return pages
            cursor = found.next_cursor
            await put(database, f"late{len(pages)}", (("k", "1"),))

    run(fill())
    assert run(walk()) == [["n6", "n5", "n4"], ["n3", "n2", "n1"], ["n0"]]


def test_one_call_reads_a_window(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may be empty, and the cursor goes on. Assets without context do not count."""
    monkeypatch.setattr("uponce.adapters.database.catalog.CONTEXT_WINDOW", 3)

    async def fill() -> None:
        await put(database, "rare", (("rare", "1"),))
        for number in range(3):
            await put(database, f"n{number}", (("k", "1"),))
            await put(database, f"without{number}", ())

    run(fill())
    first = run(page(database, "rare"))
    assert first.items == ()
    second = run(page(database, "rare", cursor=first.next_cursor))
    assert [asset.name.public_id for asset in second.items] == ["rare"]
    assert second.next_cursor is None
    assert names_of(run(page(database, "k", limit=3))) == ["n2", "n1", "n0"]
    assert CONTEXT_WINDOW >= 500


def names_of(found: Page[Asset]) -> list[str]:
    return [asset.name.public_id for asset in found.items]


def test_a_window_that_reads_all_has_no_cursor(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uponce.adapters.database.catalog.CONTEXT_WINDOW", 3)

    async def fill() -> None:
        for number in range(3):
            await put(database, f"n{number}", (("k", "1"),))

    run(fill())
    assert run(page(database, "k")).next_cursor is None


@pytest.mark.parametrize("cursor", ["", "0", "-1", "+1", " 1", "1\n", "x", "\u0661", "1" * 19, "\ud800"])
def test_an_unreadable_cursor_is_refused(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidParameter, match="Send next_cursor as it was received"):
        run(page(database, "k", cursor=cursor))


def test_a_lone_surrogate_is_refused(database: Database) -> None:
    with pytest.raises(InvalidParameter):
        run(page(database, "\ud800"))
