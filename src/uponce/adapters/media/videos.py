"""Facts of films and sounds, from their containers, by FFmpeg's libraries.

The demuxer is pinned, so that a playlist in disguise is not followed; all it can read is one open file.
"""

from fractions import Fraction
from typing import Any, BinaryIO, NoReturn

import av
from av.stream import Disposition

from uponce.adapters.media.formats import Format
from uponce.adapters.media.rotation import rotation_of
from uponce.core.errors import InvalidMedia
from uponce.core.policy import Limits, judge_dimensions
from uponce.core.values import AudioFacts, MediaFacts, ResourceType, TimedFacts, VideoFacts

UNKNOWN_LEVEL = -99
# WAV and its like say how many channels there are, not which.
_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo"}


def inspect_video(file: BinaryIO, format_: Format, limits: Limits) -> MediaFacts:
    """Facts of the first video and the first audio stream; a cover picture is no video.

    Raises InvalidMedia or MediaTooLarge.
    """
    rotation = rotation_of(file) if format_.decoder == "mov" else 0
    file.seek(0)
    try:
        with _open(file, format_, limits) as container:
            facts = _facts(container, format_, rotation)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InvalidMedia(
            f"Invalid video file. It begins like {format_.name.upper()}, but its header cannot be read.",
            detail=str(error)[:500],
        ) from error
    judge_dimensions(facts, limits)
    return facts


def _open(file: BinaryIO, format_: Format, limits: Limits) -> Any:
    # Opening may decode a few frames to learn what a header does not say: in one thread, and none too large.
    options = {
        "threads": "1",
        "max_pixels": str(limits.max_video_pixels),
        "max_streams": "64",
        "protocol_whitelist": "",
        "format_whitelist": format_.decoder,
    }
    return av.open(
        file, "r", format=format_.decoder, options=options, metadata_errors="replace", io_open=_refuse_to_open
    )


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a container may not open other files")


def _facts(container: Any, format_: Format, rotation: int) -> MediaFacts:
    video = _first(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
    audio = _first(container.streams.audio)
    if video is None and audio is None:
        raise InvalidMedia(f"Invalid video file. This {format_.name.upper()} has no video or audio that can be read.")
    timed = TimedFacts(
        duration=container.duration / av.time_base if (container.duration or 0) > 0 else None,
        bit_rate=container.bit_rate or None,
        frame_rate=_frame_rate(video) if video else None,
        nb_frames=((video or audio).frames or None),
        rotation=rotation if video else 0,
        audio=_audio(audio) if audio else None,
        video=_video(video) if video else None,
    )
    if video is None:
        return MediaFacts(ResourceType.VIDEO, format_.name, pages=0, timed=timed)
    if not video.width or not video.height:  # the decoder refused them, too large for it or for max_pixels
        raise InvalidMedia("Invalid video file. The size of its picture cannot be read, or is too large.")
    return MediaFacts(ResourceType.VIDEO, format_.name, video.width, video.height, pages=0, timed=timed)


def _first(streams: Any) -> Any:
    """The first stream that has a decoder here."""
    return next((stream for stream in streams if stream.codec_context is not None), None)


def _frame_rate(video: Any) -> float | None:
    rate = video.base_rate or video.average_rate
    return float(rate) if rate else None


def _audio(stream: Any) -> AudioFacts:
    context = stream.codec_context
    return AudioFacts(
        codec=context.codec.canonical_name,
        bit_rate=context.bit_rate or None,
        frequency=context.sample_rate,
        channels=context.channels,
        channel_layout=_LAYOUTS.get(context.layout.name, context.layout.name),
    )


def _video(stream: Any) -> VideoFacts:
    context = stream.codec_context
    return VideoFacts(
        codec=context.codec.canonical_name,
        profile=context.profile,
        level=context.level if context.level >= 0 else UNKNOWN_LEVEL,
        pix_format=context.pix_fmt or "",
        bit_rate=context.bit_rate or None,
        dar=_ratio(stream.display_aspect_ratio),
        time_base=_ratio(stream.time_base, "/") or "0/1",
    )


def _ratio(value: Fraction | None, sign: str = ":") -> str | None:
    return f"{value.numerator}{sign}{value.denominator}" if value else None
