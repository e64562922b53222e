"""`uponce upload` of files that change, and through lines that lose every answer."""

import re
from pathlib import Path
from unittest import mock

import pytest

from tests.e2e.commands import as_json, beside, uponce
from tests.e2e.lossy import LossyProxy
from tests.server import Server
from uponce.cli import upload
from uponce.core.values import GrantStatus


@pytest.fixture
def soon() -> object:
    with mock.patch.object(upload, "_RETRIES", upload._RETRIES.new(total=1, backoff_factor=0)):
        yield


@pytest.mark.usefixtures("soon")
def test_after_answers_that_are_all_lost_the_user_asks_for_the_signature(
    server: Server, lossy: LossyProxy, media: Path
) -> None:
    """Another run would sign again, and store the file twice."""
    lossy.lost = 10
    elsewhere = server.urls[0].replace(server.base, lossy.base)
    done = uponce("upload", media / "cat.jpg", env={"CLOUDINARY_URL": elsewhere})
    assert (done.code, done.stdout) == (1, "")
    assert "The file may be stored. Before you upload it again, ask on the server: " in done.stderr
    (signature,) = re.findall(r"uponce signatures show ([0-9a-f]{64})$", done.stderr, re.MULTILINE)
    assert as_json(server, "signatures", "show", signature)["status"] == GrantStatus.USED


@pytest.mark.usefixtures("soon")
def test_a_server_that_is_not_there_has_stored_nothing(media: Path) -> None:
    done = uponce(
        "upload", media / "cat.jpg", env={"CLOUDINARY_URL": "cloudinary://1:s@a?upload_prefix=http://127.0.0.1:1"}
    )
    assert done.code == 1
    assert done.stderr.endswith("Connection refused. Check that the server runs there, or use --url.\n")


def test_a_file_that_grows_is_sent_as_it_was_when_it_was_opened(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 100)
    read = upload._Form.read

    def read_and_grow(form: upload._Form, size: int) -> bytes:
        with log.open("ab") as file:
            file.write(b"y" * 5_000_000)
        return read(form, size)

    with mock.patch.object(upload._Form, "read", read_and_grow):
        (answer,) = as_json(server, "upload", "--type", "raw", log)
    assert answer["bytes"] == 100


def test_a_file_that_becomes_shorter_is_named(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * 5_000_000)
    read = upload._Form.read

    def read_and_cut(form: upload._Form, size: int) -> bytes:
        log.write_bytes(b"x")
        return read(form, size)

    with mock.patch.object(upload._Form, "read", read_and_cut):
        done = beside(server, "upload", log)
    assert (done.code, done.stdout) == (1, "")
    assert f"{log}: became shorter while it was sent. Nothing was stored. Upload it again.\n" in done.stderr
