"""What becomes of bytes that have arrived: the asset that they are to be, by what was signed and what they are."""

import asyncio
from typing import Any

import pytest

from tests.contract.databases import CALLER, grant
from tests.contract.test_database_relays import ACCOUNT
from tests.world import PNG, World
from uponce.app.authorise import Admitted
from uponce.app.ports import Draft
from uponce.app.uploading.pipeline import draft_of, examine
from uponce.core.errors import ContentMismatch, FileTooLarge, FormatNotAllowed, InvalidMedia
from uponce.core.naming import Naming
from uponce.core.parameters import UploadSpec
from uponce.core.policy import Limits
from uponce.core.values import AssetName, DeliveryType, Digest, ResourceType, Upstream

DIGEST = Digest(len(PNG), "0" * 32, "1" * 64)


@pytest.fixture
def path(tmp_path: Any) -> str:
    file = tmp_path / "spooled"
    file.write_bytes(PNG)
    return str(file)


def judged(
    world: World,
    path: str,
    spec: UploadSpec | None = None,
    *,
    requested: ResourceType | None = None,
    filename: str | None = "dir/Cat.PNG",
) -> Draft:
    admitted = Admitted(grant(), spec or UploadSpec(), {}, requested, filename, CALLER)
    facts = asyncio.run(examine(world.services, admitted, path, DIGEST))
    assert facts is not None
    return draft_of(world.services, admitted, "b" * 32, DIGEST, facts)


@pytest.mark.parametrize(
    ("upstream", "inspects", "is_here", "is_inspected"),
    [
        (None, False, True, True),
        (ACCOUNT, False, True, False),
        (ACCOUNT, True, True, True),
        (ACCOUNT, True, False, False),
    ],
)
def test_a_file_for_an_account_is_inspected_if_so_set_and_if_it_is_here(
    world: World, path: str, upstream: Upstream | None, inspects: bool, is_here: bool, is_inspected: bool
) -> None:
    world.swap(inspects=inspects)
    admitted = Admitted(grant(), UploadSpec(), {}, None, "cat.png", CALLER, upstream=upstream)
    facts = asyncio.run(examine(world.services, admitted, path if is_here else None, DIGEST))
    assert (facts is not None) is is_inspected


def test_what_was_asked_for_is_in_the_draft(world: World, path: str) -> None:
    spec = UploadSpec(
        naming=Naming(public_id="a", folder="cats"),
        overwrite=False,
        type=DeliveryType.PRIVATE,
        tags=("x", "y"),
        context=(("k", "v"),),
    )
    draft = judged(world, path, spec)
    assert draft.asset.name == AssetName("demo", ResourceType.IMAGE, DeliveryType.PRIVATE, "cats/a")
    assert (draft.asset.blob_key, draft.asset.digest, draft.overwrite) == ("b" * 32, DIGEST, False)
    assert (draft.asset.tags, draft.asset.context, draft.asset.original_filename) == (("x", "y"), (("k", "v"),), "Cat")
    assert (draft.asset.facts.format, draft.asset.facts.width) == ("png", 16)
    assert (draft.asset.version, draft.asset.created_at) == (0, 0), "the commit decides them"
    assert judged(world, path).overwrite


def test_each_has_names_of_its_own(world: World, path: str) -> None:
    drafts = [judged(world, path) for _ in range(2)]
    names = {text for draft in drafts for text in (draft.asset.asset_id, draft.asset.version_id)}
    assert len(names) == 4
    assert {len(name) for name in names} == {32}
    assert len({draft.asset.name.public_id for draft in drafts}) == 2
    assert {len(draft.asset.name.public_id) for draft in drafts} == {20}


def test_a_file_name_names_it_when_that_was_asked_for(world: World, path: str) -> None:
    draft = judged(world, path, UploadSpec(naming=Naming(use_filename=True)))
    stem, _, suffix = draft.asset.name.public_id.partition("_")
    assert (stem, len(suffix)) == ("Cat", 6)


@pytest.mark.parametrize(
    ("requested", "public_id"), [(ResourceType.RAW, "Cat.PNG"), (ResourceType.IMAGE, "Cat"), (None, "Cat")]
)
def test_the_kind_is_that_of_the_route_or_of_the_bytes(
    world: World, path: str, requested: ResourceType | None, public_id: str
) -> None:
    naming = Naming(use_filename=True, unique_filename=False)
    draft = judged(world, path, UploadSpec(naming=naming), requested=requested)
    assert (draft.asset.name.resource_type, draft.asset.name.public_id) == (requested or ResourceType.IMAGE, public_id)


@pytest.mark.parametrize(
    ("spec", "filename", "original"),
    [
        (UploadSpec(), "dir/Cat.PNG", "Cat"),
        (UploadSpec(), None, None),
        (UploadSpec(), "", None),
        (UploadSpec(naming=Naming(filename_override="Dog.gif")), "Cat.PNG", "Dog"),
        (UploadSpec(discard_original_filename=True), "Cat.PNG", None),
    ],
)
def test_the_original_filename(
    world: World, path: str, spec: UploadSpec, filename: str | None, original: str | None
) -> None:
    assert judged(world, path, spec, filename=filename).asset.original_filename == original


@pytest.mark.parametrize(
    ("spec", "requested", "error"),
    [
        (UploadSpec(sha256="2" * 64), None, ContentMismatch),
        (UploadSpec(allowed_formats=frozenset({"gif"})), None, FormatNotAllowed),
        (UploadSpec(allowed_formats=frozenset({"png"})), ResourceType.RAW, FormatNotAllowed),
        (UploadSpec(), ResourceType.VIDEO, InvalidMedia),
    ],
)
def test_what_was_not_allowed_is_refused(
    world: World, path: str, spec: UploadSpec, requested: ResourceType | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        judged(world, path, spec, requested=requested)
    assert judged(world, path, UploadSpec(sha256="1" * 64, allowed_formats=frozenset({"png"}))).asset.digest == DIGEST


@pytest.mark.parametrize("requested", [None, ResourceType.IMAGE])
def test_what_is_too_large_for_its_kind_is_refused(world: World, path: str, requested: ResourceType | None) -> None:
    """As what it was sent, and as what it turned out to be; raw files may be larger here."""
    world.swap(limits=Limits(max_image_bytes=DIGEST.size - 1))
    with pytest.raises(FileTooLarge, match=f"Got {DIGEST.size}. Maximum is {DIGEST.size - 1}"):
        judged(world, path, requested=requested)
    judged(world, path, requested=ResourceType.RAW)


def test_what_is_too_large_for_what_it_was_sent_as_is_not_even_looked_at(world: World) -> None:
    world.swap(limits=Limits(max_raw_bytes=10))
    with pytest.raises(FileTooLarge, match="Maximum is 10"):
        judged(world, "/nowhere", requested=ResourceType.RAW)
    with pytest.raises(FileTooLarge, match="Maximum is 9"):
        judged(world, "/nowhere", UploadSpec(max_bytes=9))


def test_a_raw_file_is_allowed_by_its_name(world: World, path: str) -> None:
    spec = UploadSpec(allowed_formats=frozenset({"zip"}))
    assert judged(world, path, spec, requested=ResourceType.RAW, filename="a.zip").asset.name.resource_type == "raw"
    with pytest.raises(FormatNotAllowed):
        judged(world, path, spec, requested=ResourceType.RAW, filename="a.exe")
