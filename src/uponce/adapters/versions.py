"""Which releases of the drivers run here: what a report of a problem has to name."""

import platform
import sqlite3


def versions() -> dict[str, str]:
    """By the names of the projects. Loads libvips and FFmpeg, so it is nothing for a server."""
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
