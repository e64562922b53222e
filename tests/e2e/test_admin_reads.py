"""The reads of the Admin API by unmodified SDKs of PyPI and npm."""

import json
import subprocess
from os import environ
from pathlib import Path
from typing import Any

import pytest
from cloudinary import api, uploader
from cloudinary.exceptions import AuthorizationRequired, BadRequest, NotFound

from tests.e2e.conftest import NODE
from tests.e2e.test_python_sdk import options
from tests.server import Server

Json = dict[str, Any]


@pytest.fixture
def account(server: Server) -> Json:
    return options(server, server.server)


def test_python_pings(account: Json, server: Server) -> None:
    assert api.ping(**account)["status"] == "ok"
    with pytest.raises(AuthorizationRequired, match=r"Send the API key and its secret"):
        api.ping(**account | {"api_secret": "wrong"})
    with pytest.raises(AuthorizationRequired, match=r"has upload scope"):
        api.ping(**options(server, server.browser))


def test_python_reads_the_folder_mode(account: Json) -> None:
    assert api.config(settings=True, **account)["settings"] == {"folder_mode": "fixed"}


@pytest.mark.parametrize("public_id", ["cats/ein müder Kater, 1", "a=b", "p.q/r's"])
def test_python_finds_an_asset(account: Json, media: Path, public_id: str) -> None:
    """The answer agrees with that of the upload, where both have a field."""
    context = {"alt": "a=b|c"}
    uploaded = uploader.upload(str(media / "cat.jpg"), public_id=public_id, tags=["z", "a"], context=context, **account)
    found = api.resource(public_id, media_metadata=True, pages=True, **account)
    common = (set(found) & set(uploaded)) - {"tags"}
    assert {name: found[name] for name in common} == {name: uploaded[name] for name in common}
    assert {"public_id", "version", "etag", "context", "secure_url", "asset_id", "bytes"} <= common
    assert found["tags"] == ["a", "z"]
    assert "etag" not in api.resource(public_id, **account)


def test_python_finds_a_video_and_a_raw_file(account: Json, media: Path) -> None:
    for name, kind in (("walk.mp4", "video"), ("note.txt", "raw")):
        uploaded = uploader.upload(str(media / name), resource_type=kind, use_filename=True, **account)
        found = api.resource(uploaded["public_id"], resource_type=kind, image_metadata=True, **account)
        assert (found["etag"], found["bytes"]) == (uploaded["etag"], uploaded["bytes"])


def test_python_learns_that_an_asset_is_missing(account: Json) -> None:
    with pytest.raises(NotFound, match=r"^Error 404 - Resource not found - no/such$"):
        api.resource("no/such", **account)
    with pytest.raises(BadRequest, match=r"^Error 400 - Parameter faces is not supported by this server yet"):
        api.resource("no/such", faces=True, **account)


def test_python_lists_assets_by_context(account: Json, media: Path) -> None:
    for number in range(3):
        context = {"listed by python": number % 2}
        uploader.upload(str(media / "cat.jpg"), public_id=f"listed/{number}", context=context, **account)

    def listed(*pair: str, **more: Any) -> list[str]:
        return [each["public_id"] for each in api.resources_by_context(*pair, **more, **account)["resources"]]

    assert listed("listed by python") == ["listed/2", "listed/1", "listed/0"]
    assert listed("listed by python", "0", direction="desc", tags=True, context=True) == ["listed/2", "listed/0"]
    page = api.resources_by_context("listed by python", max_results=2, **account)
    assert listed("listed by python", next_cursor=page["next_cursor"]) == ["listed/0"]


def test_python_finds_no_preset(account: Json) -> None:
    assert api.upload_presets(max_results=10, **account)["presets"] == []
    with pytest.raises(NotFound, match=r"Can't find upload preset named p$"):
        api.upload_preset("p", **account)


@pytest.mark.parametrize("package", ["cloudinary-2-1-0", "cloudinary-newest"])
def test_node_does_the_same(server: Server, node: str, media: Path, package: str) -> None:
    done = subprocess.run(
        [node, NODE / "reads.cjs", package, media / "cat.jpg"],
        env={**environ, "CLOUDINARY_URL": server.urls[1]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    uploaded, found = got["uploaded"], got["found"]
    assert got["ping"]["status"] == "ok"
    for name in ("public_id", "version", "asset_id", "etag", "context", "secure_url"):
        assert found[name] == uploaded[name]
    assert [each["public_id"] for each in got["listed"]["resources"]] == [uploaded["public_id"]]
    assert got["presets"]["presets"] == []
    assert (got["missing"]["http_code"], got["missing"]["message"]) == (404, "Resource not found - no/such")
    assert got["preset"]["http_code"] == 404
