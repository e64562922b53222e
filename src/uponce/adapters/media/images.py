"""Facts of still and animated images, from their headers, by libvips.

Only the loaders of `core/formats.py` can run, each called by name. A file could lead libvips' own sniffing to loaders
that read other files (CVE-2026-66066). A decoder gets an open file, never a name.
"""

from dataclasses import replace
from typing import BinaryIO

import pyvips

from uponce.adapters.media.headers import read_header
from uponce.adapters.media.screens import gif_canvas, png_frames
from uponce.core.errors import InvalidMedia
from uponce.core.formats import FORMATS, HEADER, Format
from uponce.core.policy import Limits, judge_dimensions
from uponce.core.values import MediaFacts, ResourceType

_LOADERS = {format_.decoder for format_ in FORMATS.values() if format_.kind is ResourceType.IMAGE} - {HEADER}


def block_other_loaders() -> None:
    """Let this process load the allowed formats only. Turn libvips' cache off."""
    pyvips.block_untrusted_set(True)
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in _LOADERS:
        pyvips.operation_block_set(pyvips.type_name(pyvips.type_find("VipsForeignLoad", loader)), False)
    pyvips.cache_set_max(0)


def inspect_image(file: BinaryIO, format_: Format, limits: Limits) -> MediaFacts:
    """Return stored width and height (EXIF orientation is not applied) and the number of frames or pages.

    An animation's size is the size of its canvas. Raise InvalidMedia, MediaTooLarge or pyvips.Error.
    """
    if format_.decoder == HEADER:
        return judge_dimensions(read_header(file, format_), limits)
    source = pyvips.Source.new_from_descriptor(file.fileno())
    image = pyvips.Operation.call(format_.decoder, source, access="sequential")
    pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    if format_.name == "avif" and image.get("heif-compression") != "av1":
        raise InvalidMedia("Invalid image file. It is marked as AVIF, but its codec is not AV1.")
    facts = judge_dimensions(MediaFacts(ResourceType.IMAGE, format_.name, image.width, image.height, pages), limits)
    if format_.name == "png":  # libvips reads the first frame only
        judge_dimensions(replace(facts, pages=png_frames(file)), limits)
    canvas = gif_canvas(file) if format_.name == "gif" else (0, 0)
    if 0 in canvas:
        return facts
    # Browsers allocate a GIF's whole canvas, whatever the size of its frames.
    return judge_dimensions(replace(facts, width=canvas[0], height=canvas[1]), limits)
