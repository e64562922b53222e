"""What uponce does not have is refused by its own name, and a wrong method with what the address is for."""

import re

import pytest

from tests.asgi import END, part
from tests.world import PNG, World, assert_refused
from uponce.web.cloudinary import calls

CALLS = {
    "explicit": ("POST", "image/explicit"),
    "rename": ("POST", "image/rename"),
    "tags": ("POST", "video/tags"),
    "context": ("POST", "raw/context"),
    "update_metadata": ("POST", "image/metadata"),
    "explode": ("POST", "image/explode"),
    "multi": ("POST", "image/multi"),
    "generate_sprite": ("GET", "image/sprite"),
    "text": ("POST", "image/text"),
    "generate_archive": ("POST", "all/generate_archive"),
    "create_slideshow": ("POST", "video/create_slideshow"),
    "private_download_url": ("GET", "image/download"),
    "delete_by_token": ("POST", "delete_by_token"),
    "destroy_by_asset_id": ("POST", "asset/destroy"),
    "usage": ("GET", "usage/01-01-2026"),
    "resource_types": ("GET", "resources"),
    "resources": ("GET", "resources/image/upload"),
    "update": ("POST", "resources/image/upload/a"),
    "delete_resources": ("DELETE", "resources/image/upload"),
    "delete_resources_by_tag": ("DELETE", "resources/image/tags/a"),
    "resources_by_tag": ("GET", "resources/image/tags/a"),
    "resource_by_asset_id": ("GET", "resources/0123456789abcdef"),
    "restore": ("POST", "resources/image/upload/restore"),
    "publish": ("POST", "resources/image/publish_resources"),
    "search": ("POST", "resources/search"),
    "visual_search": ("POST", "resources/visual_search"),
    "search_folders": ("POST", "folders/search"),
    "root_folders": ("GET", "folders"),
    "subfolders": ("GET", "folders/a/b"),
    "create_folder": ("POST", "folders/a/b"),
    "delete_upload_preset": ("DELETE", "upload_presets/p"),
    "list_tags": ("GET", "tags/image"),
    "transformations": ("GET", "transformations"),
    "list_metadata_fields": ("GET", "metadata_fields"),
    "reorder_metadata_fields": ("PUT", "metadata_fields/order"),
    "triggers": ("POST", "triggers"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_missing_call_is_refused_by_its_name(shared: World, name: str) -> None:
    method, path = CALLS[name]
    answer = shared.request(method, f"/v1_1/demo/{path}")
    assert_refused(answer, 400, "unsupported_call")
    assert answer.message.startswith(f"{name} is not supported by uponce yet.")


def test_every_row_of_the_table_can_be_reached() -> None:
    """No earlier row takes what belongs to a later one."""
    rows = [line.split() for line in calls._TABLE.strip().splitlines()]
    for method, path, name in rows:
        example = path.replace("<rt>", "image").replace("**", "x/y").replace("*", "z")
        refusal = calls.missing("GET" if method == "ANY" else method, f"/v1_1/demo/{example}")
        assert refusal.message.startswith(f"{name} is not"), example


def test_calls_of_the_second_version_and_of_provisioning_are_named(shared: World) -> None:
    assert shared.request("POST", "/v2/demo/analysis/analyze/uri").message.startswith("analyze is not")
    assert shared.request("POST", "/v1_1/provisioning/accounts/1/users").message.startswith("provisioning is not")


@pytest.mark.parametrize("alias", ["private", "authenticated"])
def test_an_upload_to_a_delivery_type_names_the_parameter(shared: World, alias: str) -> None:
    answer = shared.request("POST", f"/v1_1/demo/image/{alias}")
    assert_refused(answer, 400, "unsupported_call")
    assert f"Sign type={alias} and upload to /v1_1/<cloud>/image/upload" in answer.message


def test_what_no_api_has_is_not_found(shared: World) -> None:
    for path in ("/v1_1/demo/image/no_such", "/v1_1/demo/no_such", "/v1_1/demo", "/no/such/place", "/demo/cat.jpg"):
        assert_refused(shared.request("POST", path), 404, "not_found")


def test_an_unknown_resource_type_is_not_found(shared: World) -> None:
    body = [part("file", PNG, "a.png"), END]
    for action in ("upload", "destroy"):
        assert_refused(shared.request("POST", f"/v1_1/demo/pictures/{action}", chunks=body), 404, "not_found")


@pytest.mark.parametrize(
    ("path", "allow", "purpose"),
    [
        ("/v1_1/demo/image/upload", "POST, PUT", "This address receives uploads: POST the signed fields"),
        ("/v1_1/demo/upload", "POST, PUT", "This address receives uploads: POST the signed fields"),
        ("/v1_1/demo/image/destroy", "POST", "This address deletes an asset."),
        ("/tus/demo/", "POST, OPTIONS", "This address receives uploads by tus 1.0: POST"),
    ],
)
def test_a_wrong_method_says_what_the_address_is_for(shared: World, path: str, allow: str, purpose: str) -> None:
    answer = shared.get(path)
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert answer.message.startswith(purpose)
    assert re.search(r"Use .*, not GET\.$", answer.message)
