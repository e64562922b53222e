"""What a delivery URL may say: transformations are refused by name, and documents and drawings stay inert."""

import asyncio
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.web.test_delivery import assert_inert, signed_path, store
from tests.world import OTHER_PNG, PNG, World, assert_refused
from uponce.app import deliver
from uponce.core.signature import sign_delivery, verify_delivery
from uponce.core.values import MediaFacts, Payer, ResourceType

IN_URLS = "in delivery URLs are not supported by uponce yet"
UNSUPPORTED = {
    "/demo/image/upload/w_100/v1/cat.png": f"Transformations {IN_URLS}. Remove w_100",
    "/demo/image/upload/c_fill,w_9/none.png": f"Transformations {IN_URLS}. Remove c_fill,w_9",
    "/demo/image/upload/v1/cat.jpg": "Conversion to another format is not supported by uponce yet.",
    "/demo/image/fetch/http://example.com/a.png": "Delivery type fetch is not supported by uponce yet.",
    "/demo/images/cat/name.png": "Delivery URLs with /images/ are not supported by uponce yet.",
    "/demo/iu/cat.png": "Delivery URLs with /iu/ are not supported by uponce yet.",
}


@pytest.mark.parametrize("path", UNSUPPORTED)
def test_what_delivery_does_not_have_is_refused_by_name(shared: World, path: str) -> None:
    store(shared, public_id="cat")
    answer = shared.get(path)
    assert_refused(answer, 400, "unsupported_call")
    assert answer.message.startswith(UNSUPPORTED[path])


def test_a_folder_that_reads_like_a_transformation_is_a_folder(world: World) -> None:
    asset = store(world, public_id="w_100/cat")
    assert world.get("/demo/image/upload/w_100/cat.png").body == PNG
    assert world.get(asset["path"]).body == PNG


def test_a_private_asset_with_a_transformation_says_nothing_without_a_signature(world: World) -> None:
    store(world, public_id="cat", type="private")
    assert_refused(world.get("/demo/image/private/w_100/cat.png"), 401, "delivery_denied")
    assert_refused(world.get("/demo/image/private/cat.jpg"), 401, "delivery_denied")
    path = signed_path(world, "cat.png", type="private", width=100, crop="scale")
    assert_refused(world.get(path), 400, "unsupported_call")


@pytest.mark.parametrize("type_", ["upload", "private", "authenticated"])
@pytest.mark.parametrize(("public_id", "version"), [("cat.png", 5), ("a/cat.png", None), ("a~b c/cat.png", "12")])
def test_a_signed_transformation_with_a_version_is_refused_by_name(
    shared: World, type_: str, public_id: str, version: object
) -> None:
    """SDKs sign the text without the version, which they write behind the transformation."""
    options = {"transformation": [{"width": 100, "crop": "scale"}, {"effect": "sepia"}], "version": version}
    path = signed_path(shared, public_id, type=type_, **options)
    assert "/c_scale,w_100/e_sepia/v" in path
    for sent in (path, path.replace("%7E", "~")):
        answer = shared.get(sent)
        assert_refused(answer, 400, "unsupported_call")
        assert answer.message == f"Transformations {IN_URLS}. Remove c_scale,w_100/e_sepia from the URL."
    for other in (path.replace("w_100", "w_200"), path.replace("cat.png", "dog.png"), path.replace("e_sepia/", "")):
        assert_refused(shared.get(other), 401, "delivery_denied")


def test_a_signed_transformation_opens_no_asset_that_has_its_version_as_a_folder(world: World) -> None:
    asset = store(world, public_id="w_100/v1/cat", type="private")
    assert world.get(asset["path"]).body == PNG
    unversioned = signed_path(world, "w_100/v1/cat.png", type="private", force_version=False)
    assert unversioned.endswith("--/w_100/v1/cat.png")
    assert world.get(unversioned).body == PNG
    other = signed_path(world, "cat.png", type="private", width=100, version=1)
    assert other.endswith("--/w_100/v1/cat.png")
    assert other != unversioned
    assert_refused(world.get(other), 400, "unsupported_call")


def test_security_warns_of_parameters_that_give_away_private_files(world: World) -> None:
    """The parameters are those of the page. The last lines are the cures that the page names."""
    page = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    (warning,) = re.findall(r"^- \*\*Names of files\*\*.*?(?=^- )", page, re.MULTILINE | re.DOTALL)
    params = dict(re.findall(r"`(\w+)=(\w+)`", warning))
    assert params == {"type": "private", "use_filename": "1", "unique_filename": "0", "overwrite": "0"}
    first = store(world, filename="passport.png", **params)
    other = store(world, OTHER_PNG, filename="passport.png", **params)
    assert (other["existing"], world.get(other["path"]).body) == (True, PNG)
    assert other["secure_url"] == first["secure_url"]

    for cure in ({"folder": "user-2"}, {"public_id": "user-2"}, {"unique_filename": "1"}):
        assert "`" + next(iter(cure)) in warning
        assert world.get(store(world, OTHER_PNG, filename="passport.png", **params | cure)["path"]).body == OTHER_PNG


class Stated:
    """An inspector that knows the format beforehand."""

    def __init__(self, format_: str) -> None:
        self._format = format_

    async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
        return MediaFacts(ResourceType.IMAGE, self._format, 16, 16, 1)

    async def ping(self) -> None:
        return


@pytest.mark.parametrize(
    ("format_", "type_", "download"),
    [
        ("svg", "image/svg+xml", True),
        ("pdf", "application/pdf", True),
        ("bmp", "image/bmp", False),
        ("ico", "image/vnd.microsoft.icon", False),
    ],
)
def test_documents_and_drawings_are_images_and_inert(world: World, format_: str, type_: str, download: bool) -> None:
    world.swap(inspector=Stated(format_))
    asset = store(world, b"<svg onload=alert(1)>", public_id="art/one")
    assert (asset["resource_type"], asset["format"]) == ("image", format_)
    assert asset["path"].endswith(f"/art/one.{format_}")
    got = world.get(asset["path"])
    assert got.headers["content-type"] == type_
    wanted = f"attachment; filename*=UTF-8''one.{format_}" if download else None
    assert got.headers.get("content-disposition") == wanted
    assert_inert(got)


@pytest.mark.parametrize("name", ["photo_(1)", "größe", "a b, c"])
def test_a_signature_may_cover_the_name_before_it_is_escaped(shared: World, name: str) -> None:
    """As the SDKs of PHP and Go sign, and that of .NET a name that is not ASCII."""
    store(shared, public_id=name, type="private")
    by_hand = sign_delivery(f"{name}.png", shared.browser.secrets[0])
    assert shared.get(f"/demo/image/private/s--{by_hand}--/{quote(name)}.png").body == PNG
    other = sign_delivery(f"{name}x.png", shared.browser.secrets[0])
    assert_refused(shared.get(f"/demo/image/private/s--{other}--/{quote(name)}.png"), 401, "delivery_denied")


def test_a_signature_is_compared_with_many_keys_beside_the_loop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is needed to ask, and a cloud may have a thousand of them."""
    store(world, public_id="mine", type="private")
    good, beside = signed_path(world, "mine.png", type="private"), list[bool]()

    def noted(*args: Any) -> bool:
        beside.append(threading.current_thread() is not threading.main_thread())
        return verify_delivery(*args)

    monkeypatch.setattr(deliver, "verify_delivery", noted)
    for keys in (0, 60):
        for number in range(keys):
            key = replace(world.browser, api_key=f"key{number}", secrets=(f"secret{number}",))
            asyncio.run(world.database.add_key(key))
        assert world.get(good).status == 200
        assert world.get(good.replace("mine", "other")).status == 401
    assert beside == [False] * 2 + [True] * 2
