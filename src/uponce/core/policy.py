"""Limits as data, and the judgement of a file against them."""

from dataclasses import dataclass

from uponce.core.errors import ContentMismatch, EmptyFile, FileTooLarge, FormatNotAllowed, MediaTooLarge
from uponce.core.naming import split_filename
from uponce.core.parameters import UploadSpec, canonical_format
from uponce.core.values import Digest, MediaFacts, ResourceType

# Formats that are told by a file's bytes. The name of a raw file proves none of them: the resource type in the URL
# is not signed, so anybody could else post any bytes as raw and call them x.png.
MEDIA_FORMATS = frozenset(
    """
    jpg png gif webp avif tiff mp4 mov 3gp m4a webm mkv avi flv wmv mpg ts mp3 wav ogg flac aac aiff amr
    """.split()
)

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Limits:
    """What one upload may cost. Bytes, pixels (width × height), frames, seconds."""

    max_image_bytes: int = 100 * MIB
    max_video_bytes: int = 5 * GIB
    max_raw_bytes: int = 5 * GIB
    max_unverified_bytes: int = 100 * MIB
    unverified_seconds: int = 120
    max_unverified_uploads: int = 32
    max_image_pixels: int = 100_000_000
    max_video_pixels: int = 40_000_000
    max_frames: int = 2_000
    max_total_pixels: int = 500_000_000
    max_upload_seconds: int = 3600
    idle_seconds: int = 30
    attempts_per_grant: int = 2
    skew: int = 300

    def max_bytes(self, requested: ResourceType | None, spec: UploadSpec | None) -> int:
        """The largest file that could still be accepted before its kind is known."""
        by_kind = {
            ResourceType.IMAGE: self.max_image_bytes,
            ResourceType.VIDEO: self.max_video_bytes,
            ResourceType.RAW: self.max_raw_bytes,
        }
        limit = by_kind[requested] if requested else max(by_kind.values())
        if spec is None:
            return min(limit, self.max_unverified_bytes)
        return limit if spec.max_bytes is None else min(limit, spec.max_bytes)


def refuse_size(size: int, limit: int) -> None:
    if size > limit:
        raise FileTooLarge(f"File size too large. Got {size}. Maximum is {limit}.")


def judge_content(digest: Digest, spec: UploadSpec, limit: int) -> None:
    """Refuse by what is known without looking at the media."""
    if digest.size == 0:
        raise EmptyFile("Empty file. Send at least one byte.")
    refuse_size(digest.size, limit)
    if spec.sha256 is not None and spec.sha256 != digest.sha256:
        raise ContentMismatch(f"The file's SHA-256 is {digest.sha256}, signed was {spec.sha256}.")


def judge_media(facts: MediaFacts, digest: Digest, filename: str | None, spec: UploadSpec, limits: Limits) -> None:
    """Refuse by what the media turned out to be."""
    refuse_size(digest.size, limits.max_bytes(facts.kind, spec))
    judge_dimensions(facts, limits)
    if spec.allowed_formats is None:
        return
    named = canonical_format(split_filename(filename or "")[1])
    actual = facts.format or (named if named not in MEDIA_FORMATS else None)
    if actual not in spec.allowed_formats:
        allowed = ", ".join(sorted(spec.allowed_formats))
        raise FormatNotAllowed(
            f"{facts.kind.capitalize()} file format {actual or 'unknown'} not allowed. Allowed: {allowed}."
        )


def judge_dimensions(facts: MediaFacts, limits: Limits) -> None:
    """Refuse what would be too large to decode, by what the header promises."""
    pixels = (facts.width or 0) * (facts.height or 0)
    if facts.kind is ResourceType.VIDEO:
        _refuse("video frame size", pixels, limits.max_video_pixels, "pixels")
        return
    frames = facts.pages or 1
    _refuse("image size", pixels, limits.max_image_pixels, "pixels")
    _refuse("number of frames", frames, limits.max_frames, "frames")
    if frames > 1:
        _refuse("area of all frames together", pixels * frames, limits.max_total_pixels, "pixels")


def _refuse(what: str, value: int, limit: int, unit: str) -> None:
    if value > limit:
        raise MediaTooLarge(f"Maximum {what} is {limit} {unit}. Requested {value} {unit}.")
