"""Unmodified SDKs with one option after another: what changes no result passes, and everything else is named."""

import json
import subprocess
from collections.abc import Callable
from os import environ
from pathlib import Path
from typing import Any

import cloudinary
import pytest
from cloudinary import api, uploader
from cloudinary.exceptions import BadRequest
from cloudinary.search import Search
from cloudinary.search_folders import SearchFolders

from tests.e2e.conftest import NODE
from tests.e2e.test_python_sdk import options
from tests.server import Server
from uponce.core.parameters import Use, names

Json = dict[str, Any]

# What the SDKs of today do not send is signed by hand elsewhere.
HARMLESS: list[Json] = [
    {"invalidate": True},
    {"invalidate": False},
    {"eager_async": True},
    {"eager_async": False},
    {"use_asset_folder_as_public_id_prefix": True},
    {"overwrite": True, "unique_filename": False, "use_filename": True},
    {"discard_original_filename": False},
    *({name: False} for name in names(Use.SWITCH)),
    dict.fromkeys(names(Use.SWITCH), False),
    {"tags": [], "context": {}, "public_id": "", "folder": None},
]
OF_PYTHON: list[Json] = [*HARMLESS]
OF_NODE: list[Json] = [
    *HARMLESS,
    {"access_mode": "public"},
    {"clear_invalid": True},
    {"colors": "0"},
    {"colors": "false"},
]

REFUSED: dict[str, Any] = {
    "eager": [{"width": 100, "crop": "fill"}],
    "transformation": [{"width": 100, "crop": "fill"}],
    "eager_notification_url": "https://a.example",
    "moderation": "manual",
    "raw_convert": "aspose",
    "categorization": "google_tagging",
    "detection": "adv_face",
    "ocr": "adv_ocr",
    "background_removal": "cloudinary_ai",
    "auto_tagging": 0.5,
    "face_coordinates": [[1, 2, 3, 4]],
    "custom_coordinates": [1, 2, 3, 4],
    "headers": {"X-Robots-Tag": "noindex"},
    "access_control": [{"access_type": "token"}],
    "responsive_breakpoints": [{"create_derived": False}],
    "metadata": {"a": "b"},
    "asset_folder": "a",
    "display_name": "a",
    "format": "png",
    "proxy": "http://proxy.example",
    "upload_preset": "p",
    **dict.fromkeys(names(Use.SWITCH), True),
}


@pytest.mark.parametrize("harmless", OF_PYTHON, ids=str)
def test_python_uploads_with_what_changes_no_result(server: Server, media: Path, harmless: Json) -> None:
    answer = uploader.upload(str(media / "cat.jpg"), **harmless, **options(server, server.server))
    assert answer["format"] == "jpg"


@pytest.mark.parametrize("name", REFUSED)
def test_python_learns_the_name_of_what_is_missing(server: Server, media: Path, name: str) -> None:
    with pytest.raises(BadRequest, match=rf"^Parameter {name} is not supported by this server yet"):
        uploader.upload(str(media / "cat.jpg"), **{name: REFUSED[name]}, **options(server, server.server))


Call = Callable[..., Any]
OF_UPLOADER: dict[str, tuple[Call, tuple[Any, ...], Json]] = {
    "rename": (uploader.rename, ("a", "b"), {}),
    "explicit": (uploader.explicit, ("a",), {"type": "upload"}),
    "tags": (uploader.add_tag, ("t", ["a"]), {}),
    "context": (uploader.add_context, ({"k": "v"}, ["a"]), {}),
    "update_metadata": (uploader.update_metadata, ({"k": "v"}, ["a"]), {}),
    "explode": (uploader.explode, ("a",), {"transformation": {"page": "all"}}),
    "multi": (uploader.multi, ("t",), {}),
    "generate_sprite": (uploader.generate_sprite, ("t",), {}),
    "text": (uploader.text, ("hello",), {}),
    "generate_archive": (uploader.create_zip, (), {"tags": ["t"]}),
    "create_slideshow": (uploader.create_slideshow, (), {"manifest_json": {}}),
}
OF_ADMIN: list[tuple[str, Call, tuple[Any, ...]]] = [
    ("usage", api.usage, ()),
    ("resource_types", api.resource_types, ()),
    ("resources", api.resources, ()),
    ("resources", api.resources_by_ids, (["a"],)),
    ("resources_by_tag", api.resources_by_tag, ("t",)),
    ("resources_by_moderation", api.resources_by_moderation, ("manual", "pending")),
    ("resources_by_asset_folder", api.resources_by_asset_folder, ("f",)),
    ("resources_by_asset_ids", api.resources_by_asset_ids, (["a"],)),
    ("resource_by_asset_id", api.resource_by_asset_id, ("0" * 32,)),
    ("update", api.update, ("f/a",)),
    ("delete_resources", api.delete_resources, (["a"],)),
    ("delete_resources", api.delete_resources_by_prefix, ("a",)),
    ("delete_resources", api.delete_all_resources, ()),
    ("delete_resources_by_tag", api.delete_resources_by_tag, ("t",)),
    ("delete_derived_resources", api.delete_derived_resources, (["d"],)),
    ("list_tags", api.tags, ()),
    ("transformations", api.transformations, ()),
    ("create_transformation", api.create_transformation, ("n", {"width": 1})),
    ("publish", api.publish_by_ids, (["a"],)),
    ("restore", api.restore, (["a"],)),
    ("create_upload_preset", api.create_upload_preset, ()),
    ("delete_upload_preset", api.delete_upload_preset, ("p",)),
    ("root_folders", api.root_folders, ()),
    ("subfolders", api.subfolders, ("a/b",)),
    ("create_folder", api.create_folder, ("a/b",)),
    ("rename_folder", api.rename_folder, ("a/b", "c")),
    ("delete_folder", api.delete_folder, ("a/b",)),
    ("upload_mappings", api.upload_mappings, ()),
    ("list_streaming_profiles", api.list_streaming_profiles, ()),
    ("list_metadata_fields", api.list_metadata_fields, ()),
    ("list_metadata_rules", api.list_metadata_rules, ()),
    ("add_related_assets", api.add_related_assets, ("a", ["image/upload/b"])),
    ("visual_search", api.visual_search, ("https://a.example/b.png",)),
]


@pytest.mark.parametrize("name", OF_UPLOADER)
def test_python_learns_the_name_of_a_missing_upload_call(server: Server, name: str) -> None:
    call, arguments, more = OF_UPLOADER[name]
    with pytest.raises(BadRequest, match=rf"^{name} is not supported by uponce yet\."):
        call(*arguments, **more, **options(server, server.server))


@pytest.mark.parametrize(("name", "call", "arguments"), OF_ADMIN, ids=[call.__name__ for _, call, _ in OF_ADMIN])
def test_python_learns_the_name_of_a_missing_admin_call(
    server: Server, name: str, call: Call, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(BadRequest, match=rf"^Error 400 - {name} is not supported by uponce yet\."):
        call(*arguments, **options(server, server.server))


@pytest.mark.parametrize(("name", "search"), [("search", Search), ("search_folders", SearchFolders)])
def test_python_learns_that_search_is_missing(server: Server, name: str, search: Any) -> None:
    cloudinary.config(**options(server, server.server))
    try:
        with pytest.raises(BadRequest, match=rf"^Error 400 - {name} is not supported by uponce yet\."):
            search().expression("cat").execute()
    finally:
        cloudinary.reset_config()


NODE_CALLS: list[tuple[str, list[Any]]] = [
    ("rename", ["uploader", "rename", "a", "b"]),
    ("explicit", ["uploader", "explicit", "a", {"type": "upload"}]),
    ("tags", ["uploader", "add_tag", "t", ["a"]]),
    ("context", ["uploader", "add_context", "k=v", ["a"]]),
    ("multi", ["uploader", "multi", "t"]),
    ("text", ["uploader", "text", "hello"]),
    ("generate_archive", ["uploader", "create_zip", {"tags": ["t"]}]),
    ("usage", ["api", "usage"]),
    ("resources", ["api", "resources"]),
    ("update", ["api", "update", "f/a", {"tags": "t"}]),
    ("delete_resources", ["api", "delete_resources", ["a"]]),
    ("root_folders", ["api", "root_folders"]),
    ("create_folder", ["api", "create_folder", "a/b"]),
    ("list_metadata_fields", ["api", "list_metadata_fields"]),
]


@pytest.mark.parametrize(
    ("package", "unknown"),
    [("cloudinary-2-1-0", {"auto_chaptering", "auto_transcription"}), ("cloudinary-newest", set())],
)
def test_node_does_the_same(server: Server, node: str, media: Path, package: str, unknown: set[str]) -> None:
    """`unknown` are options that this release does not send."""
    refused = {name: value for name, value in REFUSED.items() if name not in unknown}
    uploads = [*OF_NODE, *({name: value} for name, value in refused.items())]
    plan = json.dumps({"uploads": uploads, "calls": [call for _, call in NODE_CALLS]})
    done = subprocess.run(
        [node, NODE / "options.cjs", package, media / "cat.jpg", plan],
        env={**environ, "CLOUDINARY_URL": server.urls[1]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    passed, named = told["uploads"][: len(OF_NODE)], told["uploads"][len(OF_NODE) :]
    assert [(case, error) for case, error in zip(OF_NODE, passed, strict=True) if error] == []
    messages = {name: error and error["message"] for name, error in zip(refused, named, strict=True)}
    unnamed = {
        name: message
        for name, message in messages.items()
        if not str(message).startswith(f"Parameter {name} is not supported by this server yet")
    }
    assert unnamed == {}
    assert {error["http_code"] for error in [*named, *told["calls"]]} == {400}
    assert [error["message"].partition(" ")[0] for error in told["calls"]] == [name for name, _ in NODE_CALLS]
