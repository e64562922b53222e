"""Commands that sign by CLOUDINARY_URL, and which key signs if there are several."""

import json
from pathlib import Path

import pytest

from tests.e2e.commands import printed, settings_of, uponce
from tests.server import Server

ELSEWHERE = "cloudinary://111:secret@elsewhere?upload_prefix=http://elsewhere.example"


def test_cloudinary_url_signs_a_shorter_life(server: Server, media: Path, tmp_path: Path) -> None:
    key = server.browser
    signed = json.loads(
        printed(uponce("sign", "--json", "valid_for=60", env={"CLOUDINARY_URL": ELSEWHERE}, cwd=tmp_path))
    )
    assert signed["fields"]["valid_for"] == "60"
    own = {"CLOUDINARY_URL": f"cloudinary://{key.key}:{key.secret}@media?upload_prefix={server.base}"}
    assert server.base in printed(uponce("upload", media / "cat.jpg", "--set", "valid_for=60", env=own, cwd=tmp_path))
    assert uponce("sign", "valid_for=604801", env=own, cwd=tmp_path).code == 1


@pytest.mark.parametrize("command", [["sign"], ["upload", __file__], ["prove"]], ids=lambda words: words[0])
def test_cloudinary_url_never_stands_in_for_another_key(command: list[str], tmp_path: Path) -> None:
    done = uponce(*command, "--key", "999:hidden", env={"CLOUDINARY_URL": ELSEWHERE}, cwd=tmp_path)
    assert (done.code, done.stdout) == (1, "")
    assert "--key names another API key than CLOUDINARY_URL, whose key is 111. Unset CLOUDINARY_URL" in done.stderr
    assert "hidden" not in done.stderr


def test_a_data_folder_that_is_named_wins_over_cloudinary_url(server: Server, tmp_path: Path) -> None:
    def cloud_of(*words: str | Path, env: dict[str, str]) -> str:
        signed = json.loads(printed(uponce("sign", "--json", *words, env={"CLOUDINARY_URL": ELSEWHERE, **env})))
        return str(signed["upload_url"].split("/")[4])

    assert cloud_of("--data", server.data_dir, env={}) == "media"
    assert cloud_of(env=settings_of(server)) == "media"
    assert cloud_of(env={"UPONCE_LOG_LEVEL": "info"}) == "elsewhere"
    told = uponce("sign", env={"CLOUDINARY_URL": ELSEWHERE, **settings_of(server)}).stderr
    assert "CLOUDINARY_URL does not count, because UPONCE_DATA names a data folder." in told
    assert cloud_of("--key", "111", env={}) == "elsewhere"


def test_the_cloudinary_url_of_an_account_is_refused_with_the_cure(tmp_path: Path) -> None:
    done = uponce("sign", env={"CLOUDINARY_URL": "cloudinary://KEY:hidden@media"}, cwd=tmp_path)
    assert (done.code, done.stdout) == (1, "")
    assert "upload_prefix=http://HOST:PORT. Correct it, unset it, or name a data folder with --data." in done.stderr
    assert "hidden" not in done.stderr
