"""Cloudinary's dialect: the shapes of answers, as its SDKs expect them (reference: the Upload API)."""

from datetime import UTC, datetime
from typing import Any

from uponce.app.upload import Uploaded
from uponce.core.delivery import path_of, source_of
from uponce.core.naming import folder_of
from uponce.core.series import Series
from uponce.core.signature import Algorithm, sign_delivery, sign_response
from uponce.core.values import Asset, DeliveryType, MediaFacts, ResourceType, TimedFacts

Json = dict[str, Any]


def upload_answer(uploaded: Uploaded, base_url: str) -> Json:
    """The body of a completed upload."""
    signer = uploaded.signer
    answer = asset_body(uploaded.committed.asset, base_url, signer.secret, signer.algorithm)
    answer["api_key"] = signer.api_key
    if uploaded.committed.existing:
        answer["existing"] = True
    if uploaded.committed.overwritten:
        answer["overwritten"] = True
    return answer


def destroy_answer(existed: bool) -> Json:
    """The body of a deletion, also of what was not there: 200 in both cases."""
    return {"result": "ok" if existed else "not found"}


def chunk_answer(outcome: Uploaded | Series, base_url: str) -> Json:
    """The body of an answer to a chunk.

    While others are missing it names no public_id: PHP's SDK would add it to the next chunk without signing it,
    Python's would sign it together with a folder.
    """
    if isinstance(outcome, Uploaded):
        return {**upload_answer(outcome, base_url), "done": True}
    kind = dict(outcome.parameters).get("type", DeliveryType.UPLOAD)
    return {"done": False, "bytes": outcome.received, "kind": kind, **_present(resource_type=outcome.requested)}


def asset_body(asset: Asset, base_url: str, secret: str, algorithm: Algorithm) -> Json:
    """What is known of an asset. `url` and `secure_url` are one working URL: the server knows one base URL."""
    name, facts = asset.name, asset.facts
    url = base_url + _delivery_path(asset, secret)
    body: Json = {
        "asset_id": asset.asset_id,
        "public_id": name.public_id,
        "version": asset.version,
        "version_id": asset.version_id,
        "signature": sign_response(name.public_id, asset.version, secret, algorithm),
        **_image_fields(facts),
        "resource_type": name.resource_type,
        "created_at": datetime.fromtimestamp(asset.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tags": list(asset.tags),
        "bytes": asset.digest.size,
        "type": name.type,
        "etag": asset.digest.md5,
        "placeholder": False,
        "url": url,
        "secure_url": url,
        "folder": folder_of(name.public_id),
        **(_timed_fields(facts.timed) if facts.timed else {}),
    }
    if asset.context:
        body["context"] = {"custom": dict(asset.context)}
    if asset.original_filename is not None:
        body["original_filename"] = asset.original_filename
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
    fields = {"width": facts.width, "height": facts.height, "format": facts.format, "pages": facts.pages}
    return {name: value for name, value in fields.items() if value is not None}


def _timed_fields(timed: TimedFacts) -> Json:
    """Video and audio, with ffprobe's habits: bit rates of streams are text, absent facts are left out."""
    audio, video = timed.audio, timed.video
    fields: Json = {
        "audio": _present(
            codec=audio.codec,
            bit_rate=_text(audio.bit_rate),
            frequency=audio.frequency,
            channels=audio.channels,
            channel_layout=audio.channel_layout,
        )
        if audio
        else {},
        "video": _present(
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
    return fields | _present(
        frame_rate=timed.frame_rate, bit_rate=timed.bit_rate, duration=timed.duration, nb_frames=timed.nb_frames
    )


def _present(**fields: object) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
