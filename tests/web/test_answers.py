"""The answers to uploads of real media: the fields of Cloudinary's contract, and a signature its SDK verifies."""

import asyncio
import re
from collections.abc import Callable
from contextlib import nullcontext
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cloudinary
import pytest
from cloudinary.utils import verify_api_response_signature

from tests import samples
from tests.asgi import END, FORM, Answer, call, part, parts_of
from tests.web.test_credentials import basic
from tests.world import START, World, assert_accepted, create_key
from uponce.adapters.media.pool import DecoderPool
from uponce.core.policy import Limits
from uponce.core.values import Algorithm
from uponce.web.routes import create_app

COMMON = {
    "asset_id": r"[0-9a-f]{32}",
    "public_id": r"[a-z0-9]{20}(\.txt)?",
    "version": str(START),
    "version_id": r"[0-9a-f]{32}",
    "signature": r"[0-9a-f]{40}",
    "created_at": "2026-01-01T00:00:00Z",
    "type": "upload",
    "placeholder": "False",
    "folder": "",
    "original_filename": "sample",
    "tags": r"\[\]",
}
MEDIA: dict[str, tuple[Callable[[int], bytes], dict[str, Any]]] = {
    "jpg": (samples.jpeg, {"resource_type": "image", "width": 640, "height": 480, "pages": 1}),
    "png": (samples.png, {"resource_type": "image", "width": 320, "height": 240, "pages": 1}),
    "gif": (samples.gif, {"resource_type": "image", "width": 160, "height": 120, "pages": 12}),
    "webp": (samples.webp, {"resource_type": "image", "width": 320, "height": 240, "pages": 1}),
    "mp4": (samples.mp4, {"resource_type": "video", "width": 320, "height": 240, "pages": 0, "is_audio": False}),
    "webm": (samples.webm, {"resource_type": "video", "width": 160, "height": 120, "pages": 0, "is_audio": False}),
    "mp3": (samples.mp3, {"resource_type": "video", "pages": 0, "is_audio": True}),
    "wav": (samples.wav, {"resource_type": "video", "pages": 0, "is_audio": True}),
}


def upload_all(world: World, root: Path, files: dict[str, bytes]) -> dict[str, Answer]:
    """All of them through real decoders, at once; by filename."""

    async def one(filename: str, data: bytes) -> Answer:
        body = [parts_of(world.sign()), part("file", data, filename), END]
        return await call(world.app, "POST", world.route(), headers=FORM, chunks=body)

    async def play() -> list[Answer]:
        pool = DecoderPool(Limits(), [str(root)], job_seconds=60, queue_seconds=300)
        await pool.start()
        world.swap(inspector=pool)
        try:
            return await asyncio.gather(*(one(name, data) for name, data in files.items()))
        finally:
            await pool.close()

    return dict(zip(files, asyncio.run(play()), strict=True))


@pytest.fixture(scope="module")
def answers(shared: World) -> dict[str, Any]:
    files = {f"sample.{format_}": make(1) for format_, (make, _) in MEDIA.items()} | {"sample.txt": b"hello"}
    answered = upload_all(shared, shared.media / "spool", files)
    return {name: assert_accepted(answer).json | {"sent": files[name]} for name, answer in answered.items()}


@pytest.mark.parametrize("format_", [*MEDIA, "txt"])
def test_every_answer_has_the_common_fields(shared: World, answers: dict[str, Any], format_: str) -> None:
    answer, key = answers[f"sample.{format_}"], shared.browser
    for name, pattern in COMMON.items():
        assert re.fullmatch(pattern, str(answer[name])), (name, answer[name])
    assert answer["bytes"] == len(answer["sent"])
    assert answer["etag"] == md5(answer["sent"]).hexdigest()
    assert answer["api_key"] == key.api_key
    assert answer["url"] == answer["secure_url"]
    assert answer.get("playback_url") == (answer["url"] if answer["resource_type"] == "video" else None)
    assert shared.get(urlsplit(answer["url"]).path).body == answer["sent"]
    assert verified_by_sdk(answer, key.secrets[0])


def verified_by_sdk(answer: dict[str, Any], secret: str, *algorithm: str) -> bool:
    """The SDK reads the secret from its configuration."""
    cloudinary.config(api_secret=secret)
    parts = answer["public_id"], answer["version"], answer["signature"]
    try:
        return bool(verify_api_response_signature(*parts, *algorithm))
    finally:
        cloudinary.reset_config()


@pytest.mark.parametrize("format_", MEDIA)
def test_media_answers_say_what_the_file_is(answers: dict[str, Any], format_: str) -> None:
    answer = answers[f"sample.{format_}"]
    expected = {"format": format_, **MEDIA[format_][1]}
    assert {name: answer.get(name) for name in expected} == expected
    assert answer["url"].endswith(f"/v{START}/{answer['public_id']}.{format_}")


SHAPES: dict[str, Callable[[Any], bool]] = {
    "duration": lambda value: isinstance(value, float) and 0.9 < value < 1.2,
    "rotation": lambda value: value == 0,
    "bit_rate": lambda value: isinstance(value, int) and value > 0,
}


@pytest.mark.parametrize("format_", ["mp4", "webm", "mp3", "wav"])
def test_films_and_sounds_have_ffprobes_fields(answers: dict[str, Any], format_: str) -> None:
    answer = answers[f"sample.{format_}"]
    for name, good in SHAPES.items():
        assert good(answer[name]), (name, answer[name])
    audio, video = answer["audio"], answer["video"]
    assert audio["codec"] == {"mp4": "aac", "webm": "opus", "mp3": "mp3", "wav": "pcm_s16le"}[format_]
    assert audio["channels"] == 2
    assert isinstance(audio["frequency"], int)
    if answer["is_audio"]:
        assert video == {}
        assert "width" not in answer
    else:
        assert (video["codec"], video["pix_format"]) == ({"mp4": "h264", "webm": "vp8"}[format_], "yuv420p")
        assert answer["frame_rate"] == 25.0


def test_raw_has_no_media_fields_and_keeps_its_extension(answers: dict[str, Any]) -> None:
    answer = answers["sample.txt"]
    assert answer["resource_type"] == "raw"
    assert not {"format", "width", "height", "pages", "audio", "video"} & set(answer)
    assert answer["public_id"].endswith(".txt")
    assert answer["url"].endswith(f"/v{START}/{answer['public_id']}")


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_sdks_verify_an_answer_by_default_whatever_signed_the_request(world: World, algorithm: str) -> None:
    answer = assert_accepted(world.upload(world.sign(algorithm=algorithm))).json
    assert verified_by_sdk(answer, world.browser.secrets[0])


def test_sdks_verify_the_answer_to_http_basic(world: World) -> None:
    answer = assert_accepted(world.upload({}, headers=basic(world.browser))).json
    assert verified_by_sdk(answer, world.browser.secrets[0])


def test_a_key_without_sha1_signs_its_answers_with_sha256(world: World) -> None:
    key = asyncio.run(create_key(world.services, "demo", algorithms=(Algorithm.SHA256,)))
    answer = assert_accepted(world.upload(world.sign(key=key, algorithm="sha256"))).json
    assert verified_by_sdk(answer, key.secrets[0], "sha256")


def test_optional_fields_appear_when_asked_for(world: World) -> None:
    params = {"public_id": "dir/a", "tags": "x, y,x", "context": "alt=a\\=b|cap=c", "discard_original_filename": "true"}
    answer = assert_accepted(world.upload(world.sign(params))).json
    assert (answer["folder"], answer["tags"]) == ("dir", ["x", "y"])
    assert answer["context"] == {"custom": {"alt": "a=b", "cap": "c"}}
    assert not {"original_filename", "existing", "overwritten"} & set(answer)


def test_a_decoder_that_fails_on_a_file_is_a_400_for_that_file(world: World) -> None:
    """The head says JPEG, the rest is rubbish; the others beside it are not touched."""
    files = {
        "bad.jpg": samples.jpeg(1)[:300] + b"\0" * 300,
        "good.jpg": samples.jpeg(2),
        "cut.mp4": samples.mp4(1)[:400],
    }
    answered = upload_all(world, world.media / "spool", files)
    assert {name: answer.code for name, answer in answered.items()} == {
        "bad.jpg": "invalid_media",
        "good.jpg": "ok",
        "cut.mp4": "invalid_media",
    }
    traces = world.traces()
    assert (traces.assets, traces.grants, len(traces.blobs), traces.spooled) == (1, 1, 1, frozenset())


@pytest.mark.parametrize(
    ("scheme", "public_url", "url", "secure_url"),
    [
        ("http", None, "http://media.example/", "http://media.example/"),
        ("https", None, "https://media.example/", "https://media.example/"),
        ("http", "https://cdn.example", "http://cdn.example/", "https://cdn.example/"),
        ("https", "https://cdn.example", "https://cdn.example/", "https://cdn.example/"),
        ("https", "http://cdn.example", "http://cdn.example/", "http://cdn.example/"),
    ],
)
def test_url_is_http_when_the_client_came_by_http(
    world: World, scheme: str, public_url: str | None, url: str, secure_url: str
) -> None:
    app = create_app(world.services, lambda _: nullcontext(), public_url)

    async def came_by(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "scheme": scheme}, receive, send)

    body = [parts_of(world.sign()), part("file", samples.png(1, 16, 16), "a.png"), END]
    answer = asyncio.run(call(came_by, "POST", world.route(), headers=FORM, chunks=body)).json
    assert answer["url"].startswith(url + "demo/")
    assert answer["secure_url"].startswith(secure_url + "demo/")
