"""Releases of the drivers that run here, and the known flaws of decoders that these releases have."""

import platform
import re
import sqlite3
from collections.abc import Iterator, Mapping

from uponce.app.diagnose import Flaw

# Memory errors in the loaders, demuxers and decoders that may run here: see core/formats.py and media/videos.py. The
# table omits flaws of other code, such as the decoder of MagicYUV (CVE-2026-8461), which no file reaches here.
# libheif, libtiff, libwebp and libpng are inside the wheel's libvips and name no version at run time.
# Sources: the record of each number in the CVE List (CVEProject/cvelistV5); advisory GHSA-9rwc-f68v-4482 of libvips.
FLAWS = (
    Flaw(
        "libvips",
        "0",
        "8.18.3",
        "CVE-2026-69242",
        "a TIFF of many bands leads to writes outside its memory",
        "pyvips-binary",
    ),
    Flaw("FFmpeg", "4.1", "8.1", "CVE-2026-40962", "an encrypted MP4 leads to writes outside its memory", "av"),
)


def versions() -> dict[str, str]:
    """Return the release of each driver by the name of its project. Loads libvips and FFmpeg: not for a server."""
    import av
    import psycopg
    import pyvips

    return {
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "psycopg": psycopg.__version__,
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
        "FFmpeg": av.ffmpeg_version_info,
    }


def known_flaws(installed: Mapping[str, str]) -> Iterator[Flaw]:
    """Yield the flaws of FLAWS that these releases have. A build without a number, such as of a commit, has none."""
    for flaw in FLAWS:
        numbers = _numbers(installed.get(flaw.project, ""))
        if numbers and _numbers(flaw.since) <= numbers < _numbers(flaw.fixed):
            yield flaw


def _numbers(version: str) -> tuple[int, ...]:
    """Return 8.1.2 of "8.1.2", "n8.1.2" or "8.1.2-0+deb13u1" as (8, 1, 2). Zeros at the end do not count."""
    found = re.match(r"n?(\d+(?:\.\d+)*)", version)
    numbers = [int(number) for number in found[1].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
