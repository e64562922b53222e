"""Cloudinary's dialect: answers in the form that its SDKs expect (reference: the Upload API).

`note_outcome` notes what the log shows of an upload.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from uponce.app.uploading.pipeline import Uploaded
from uponce.core.naming import folder_of, path_of, source_of
from uponce.core.relaying import Forwarded
from uponce.core.series import Series
from uponce.core.signature import sign_delivery, sign_response
from uponce.core.values import Algorithm, Asset, DeliveryType, MediaFacts, ResourceType, TimedFacts
from uponce.web.request import Request

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bases:
    """The bases of an answer's URLs: `plain` is http if the client called by http, `secure` is the public URL."""

    plain: str
    secure: str


def bases_of(request: Request) -> Bases:
    """Return the bases of the URLs in an answer to this request."""
    base = request.base_url()
    return Bases(f"http://{base.partition('://')[2]}" if request.scheme == "http" else base, base)


def upload_answer(uploaded: Uploaded, bases: Bases) -> Json:
    """Return the body of a completed upload."""
    signer = uploaded.signer
    answer = asset_body(uploaded.committed.asset, bases, signer.secret, signer.algorithm)
    answer["api_key"] = signer.api_key
    if uploaded.committed.existing:
        answer["existing"] = True
    if uploaded.committed.overwritten:
        answer["overwritten"] = True
    return answer


def destroy_answer(existed: bool) -> Json:
    """Return the body of a deletion. Status 200 in both cases."""
    return {"result": "ok" if existed else "not found"}


def chunk_answer(outcome: Uploaded | Forwarded | Series, bases: Bases) -> Json:
    """Return the body of an answer to a chunk.

    While chunks are missing, the body has no public_id. PHP's SDK would add a public_id to the next chunk without
    signing it, and Python's SDK would sign it together with a folder.
    """
    if isinstance(outcome, Uploaded):
        return {**upload_answer(outcome, bases), "done": True}
    if isinstance(outcome, Forwarded):
        return {**msgspec.json.decode(outcome.body), "done": True}
    kind = dict(outcome.parameters).get("type", DeliveryType.UPLOAD)
    return {"done": False, "bytes": outcome.received, "kind": kind, **present(resource_type=outcome.requested)}


def note_outcome(request: Request, outcome: Uploaded | Forwarded | Series) -> None:
    """Note what an upload did: it stored an asset here or upstream, repeated a lost answer, or brought a part."""
    if isinstance(outcome, Forwarded):
        request.facts.update(event="repeated" if outcome.replayed else "relayed", public_id=outcome.public_id)
        return
    if isinstance(outcome, Series):
        request.facts.update(event="part", key=outcome.api_key, received=outcome.received)
        return
    asset = outcome.committed.asset
    request.facts.update(
        event="repeated" if outcome.replayed else "stored",
        key=outcome.signer.api_key,
        public_id=asset.name.public_id,
        bytes=asset.digest.size,
    )


def asset_body(asset: Asset, bases: Bases, secret: str, algorithm: Algorithm) -> Json:
    """Return all facts of an asset."""
    name, facts = asset.name, asset.facts
    path = _delivery_path(asset, secret)
    body: Json = {
        "asset_id": asset.asset_id,
        "public_id": name.public_id,
        "version": asset.version,
        "version_id": asset.version_id,
        "signature": sign_response(name.public_id, asset.version, secret, algorithm),
        **_image_fields(facts),
        "resource_type": name.resource_type,
        "created_at": _time_text(asset.created_at),
        "tags": list(asset.tags),
        "bytes": asset.digest.size,
        "type": name.type,
        "etag": asset.digest.md5,
        "placeholder": False,
        "url": bases.plain + path,
        "secure_url": bases.secure + path,
        "folder": folder_of(name.public_id),
        **(_timed_fields(facts.timed) if facts.timed else {}),
    }
    if name.resource_type is ResourceType.VIDEO:
        body["playback_url"] = bases.secure + path  # the file itself: there is no adaptive stream
    if asset.context:
        body["context"] = {"custom": dict(asset.context)}
    if asset.original_filename is not None:
        body["original_filename"] = asset.original_filename
    return body


@lru_cache(64)
def _time_text(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()[:19] + "Z"


_OF_UPLOADS = frozenset("signature version_id placeholder original_filename playback_url".split())
_OF_DETAILS = frozenset("etag tags context".split())


def resource_body(asset: Asset, bases: Bases, secret: str, *details: str) -> Json:
    """Return the facts of an asset as the Admin API shows them.

    `details` are those of `etag`, `tags` and `context` to show. Tags are sorted. Empty tags are omitted.
    """
    hidden = (_OF_DETAILS - set(details)) | _OF_UPLOADS
    body = {
        name: value for name, value in asset_body(asset, bases, secret, Algorithm.SHA1).items() if name not in hidden
    }
    if tags := sorted(body.pop("tags", ())):
        body["tags"] = tags
    return body


def _delivery_path(asset: Asset, secret: str) -> str:
    name, format_ = asset.name, asset.facts.format
    signature = None
    if name.type is not DeliveryType.UPLOAD:
        signature = sign_delivery(source_of(name.public_id, format_), secret)
    return path_of(name, asset.version, format_, signature)


def _image_fields(facts: MediaFacts) -> Json:
    if facts.kind is ResourceType.RAW:
        return {}
    return present(width=facts.width, height=facts.height, format=facts.format, pages=facts.pages)


def _timed_fields(timed: TimedFacts) -> Json:
    """Return the facts of video and audio in ffprobe's form: bit rates of streams as text, no unknown facts."""
    audio, video = timed.audio, timed.video
    fields: Json = {
        "audio": present(
            codec=audio.codec,
            bit_rate=_text(audio.bit_rate),
            frequency=audio.frequency,
            channels=audio.channels,
            channel_layout=audio.channel_layout,
        )
        if audio
        else {},
        "video": present(
            pix_format=video.pix_format,
            codec=video.codec,
            level=video.level,
            profile=video.profile,
            bit_rate=_text(video.bit_rate),
            dar=video.dar,
            time_base=video.time_base,
        )
        if video
        else {},
        "is_audio": video is None,
        "pages": 0,
        "rotation": timed.rotation,
    }
    return fields | present(
        frame_rate=timed.frame_rate, bit_rate=timed.bit_rate, duration=timed.duration, nb_frames=timed.nb_frames
    )


def present(**fields: object) -> Json:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
