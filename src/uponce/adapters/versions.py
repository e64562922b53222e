"""Releases of the drivers that run here."""

import platform
import sqlite3


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
