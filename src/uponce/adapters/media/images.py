"""Facts of still and animated images, from their headers, by libvips.

Only the loaders of `formats.py` can run, each called by name: libvips' own sniffing could be led to loaders that
read other files (CVE-2026-66066). A decoder gets an open file, never a name.
"""

import mmap
from typing import BinaryIO

import pyvips

from uponce.adapters.media.formats import Format
from uponce.core.errors import InvalidMedia, MediaTooLarge
from uponce.core.policy import Limits, judge_dimensions
from uponce.core.values import MediaFacts, ResourceType

_ALLOWED = ("Jpeg", "Png", "Nsgif", "Webp", "Heif", "Tiff")


def block_other_loaders() -> None:
    """From now on this process can load nothing but the allowed formats, and libvips keeps no cache."""
    pyvips.block_untrusted_set(True)
    pyvips.operation_block_set("VipsForeignLoad", True)
    for name in _ALLOWED:
        pyvips.operation_block_set(f"VipsForeignLoad{name}Source", False)
    pyvips.cache_set_max(0)


def inspect_image(file: BinaryIO, format_: Format, limits: Limits) -> MediaFacts:
    """Stored width and height (EXIF orientation is not applied) and number of frames or pages.

    An animation's size is that of its canvas. Raises InvalidMedia or MediaTooLarge.
    """
    screen = _gif_screen(file, limits) if format_.name == "gif" else None
    try:
        image = _open(file, format_.decoder)
        pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    except pyvips.Error as error:
        raise InvalidMedia(
            f"Invalid image file. It begins like {format_.name.upper()}, but its header cannot be read.",
            detail=str(error)[:500],
        ) from error
    if format_.name == "avif" and image.get("heif-compression") != "av1":
        raise InvalidMedia("Invalid image file. It is marked as AVIF, but not coded in AV1.")
    facts = MediaFacts(ResourceType.IMAGE, format_.name, image.width, image.height, pages)
    judge_dimensions(facts, limits)
    if screen is not None and screen != (image.width, image.height):
        return _on_screen(facts, screen, limits)
    return facts


def _open(file: BinaryIO, loader: str) -> pyvips.Image:
    source = pyvips.Source.new_from_descriptor(file.fileno())
    return pyvips.Operation.call(loader, source, access="sequential")


def _on_screen(facts: MediaFacts, screen: tuple[int, int], limits: Limits) -> MediaFacts:
    """A GIF whose frames do not fill its logical screen: browsers allocate the screen, so it counts."""
    if 0 in screen:
        return facts
    on_screen = MediaFacts(facts.kind, facts.format, *screen, facts.pages)
    judge_dimensions(on_screen, limits)
    return on_screen


def _gif_screen(file: BinaryIO, limits: Limits) -> tuple[int, int]:
    """The logical screen's width and height. Frames are counted only as far as the limit: counting alone is work.

    Source: GIF89a specification, https://www.w3.org/Graphics/GIF/spec-gif89a.txt
    """
    frames = 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            at = 13 + _colour_table(data[10])
            while data[at] != 0x3B:  # trailer
                if data[at] == 0x2C:  # image descriptor: position, size, flags, colours, LZW code size
                    frames += 1
                    at += 10 + _colour_table(data[at + 9]) + 1
                else:  # extension: introducer and label
                    at += 2
                at = _after_blocks(data, at)
                if frames > limits.max_frames:
                    raise MediaTooLarge(
                        f"Maximum number of frames is {limits.max_frames} frames. This GIF has more. Send fewer."
                    )
        except IndexError:
            pass  # torn at the end: what came before counts, as in browsers
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


def _colour_table(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: mmap.mmap, at: int) -> int:
    while size := data[at]:
        at += size + 1
    return at + 1
