"""Facts of videos and sounds, from their containers, by FFmpeg's libraries.

The demuxer is pinned, so FFmpeg never follows a playlist in disguise. FFmpeg can read one open file and nothing else.
Only the decoders of DECODERS can run: the wheel of PyAV has 539.
"""

from dataclasses import replace
from fractions import Fraction
from typing import Any, BinaryIO, NoReturn

import av
import av.subtitles.codeccontext  # PyAV loads it at the first subtitle: too late for a confined decoder
import av.subtitles.stream
from av.stream import Disposition

from uponce.adapters.media.id3 import hide_tags
from uponce.adapters.media.matroska import hide_unneeded
from uponce.adapters.media.mp4 import Mp4Claims, scan_mp4
from uponce.core.errors import InvalidMedia
from uponce.core.formats import Format
from uponce.core.policy import Limits, judge_dimensions
from uponce.core.values import AudioFacts, MediaFacts, ResourceType, TimedFacts, VideoFacts

# The codecs that people upload today, by FFmpeg's names of the decoders. A stream of any other codec is ignored.
DECODERS = frozenset(
    """
    av1 libdav1d dnxhd dvvideo flv h263 h264 hevc mjpeg mpeg1video mpeg2video mpeg4 msmpeg4 msmpeg4v1 msmpeg4v2 prores
    theora vc1 vp6 vp6a vp6f vp8 vp9 wmv1 wmv2 wmv3
    aac aac_latm ac3 adpcm_ima_wav adpcm_ms adpcm_swf alac amrnb amrwb dca eac3 flac mp2 mp2float mp3 mp3float
    nellymoser opus pcm_alaw pcm_f32be pcm_f32le pcm_f64le pcm_mulaw pcm_s16be pcm_s16le pcm_s24be pcm_s24le pcm_s32be
    pcm_s32le pcm_s8 pcm_u8 speex vorbis wmapro wmav1 wmav2
    """.split()
)

# How far FFmpeg looks for facts that the header lacks. A frame of AAC can have 8 bytes: 5 MB of them take it 1.5 s. It
# has at most 8 KB, so this is at least 122 of them, and the facts of sound are in the first.
_PROBED_BYTES = {"aac": 1_000_000}
_USUAL_PROBED_BYTES = 5_000_000  # FFmpeg's own

UNKNOWN_LEVEL = -99
# WAV and some other formats give the number of channels only.
_LAYOUTS = {"1 channels": "mono", "2 channels": "stereo"}


def inspect_video(file: BinaryIO, format_: Format, limits: Limits) -> MediaFacts:
    """Return the facts of the first video and the first audio stream. A cover picture is no video.

    Raise InvalidMedia, MediaTooLarge, or an error of PyAV.
    """
    claims = scan_mp4(file, limits) if format_.decoder == "mov" else Mp4Claims()
    file = hide_unneeded(file) if format_.decoder == "matroska" else hide_tags(file)
    file.seek(0)
    with _open(file, format_, limits, claims) as container:
        return judge_dimensions(_facts(container, format_, limits, claims.rotation), limits)


def _open(file: BinaryIO, format_: Format, limits: Limits, claims: Mp4Claims) -> Any:
    # Opening a file may decode a few frames, for facts that its header lacks. Without the edits of an MP4 its duration
    # includes the parts that they cut. With 5,000 edits to apply, FFmpeg takes 11 seconds.
    options = {
        "threads": "1",
        "max_pixels": str(limits.max_video_pixels),
        "max_streams": "64",
        "probesize": str(_PROBED_BYTES.get(format_.decoder, _USUAL_PROBED_BYTES)),
        "protocol_whitelist": "",
        "format_whitelist": format_.decoder,
        "codec_whitelist": ",".join(sorted(DECODERS)),
        "advanced_editlist": "1" if claims.has_cheap_edits else "0",
    }
    return av.open(
        file, "r", format=format_.decoder, options=options, metadata_errors="replace", io_open=_refuse_to_open
    )


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a container may not open other files")


def _facts(container: Any, format_: Format, limits: Limits, rotation: int) -> MediaFacts:
    films = [s for s in container.streams.video if s.codec_context and not s.disposition & Disposition.attached_pic]
    video, audio = _first(films), _first(container.streams.audio)
    if films and video is None:
        raise InvalidMedia(
            f"Invalid video file. The codec {films[0].codec_context.codec.canonical_name} is not supported here. "
            "Convert it to H.264, or upload it as raw."
        )
    if video is None and audio is None:
        raise InvalidMedia(
            f"Invalid video file. This {format_.name.upper()} has no video or audio in a codec that is supported here. "
            "Convert it to H.264 and AAC, or upload it as raw."
        )
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
        if not audio.sample_rate:
            raise InvalidMedia("Invalid video file. Its sound cannot be read. Upload it as raw to store it unchanged.")
        return MediaFacts(ResourceType.VIDEO, format_.name, pages=0, timed=timed)
    if not video.width or not video.height:  # the decoder refused it: broken, or above max_pixels
        raise InvalidMedia(
            "Invalid video file. The size of its picture cannot be read, or it has more than "
            f"{limits.max_video_pixels} pixels, the maximum here."
        )
    facts = MediaFacts(ResourceType.VIDEO, format_.name, video.width, video.height, pages=0, timed=timed)
    for other in films:  # many programs take the largest of several films
        judge_dimensions(replace(facts, width=other.width, height=other.height), limits)
    return facts


def _first(streams: Any) -> Any:
    """Return the first stream that has an allowed decoder."""
    return next((s for s in streams if s.codec_context is not None and s.codec_context.codec.name in DECODERS), None)


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
