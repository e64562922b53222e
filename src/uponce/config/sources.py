"""The sources of settings: the environment, `.env` and a TOML file.

The environment overrides the file `.env` of the working folder, and `.env` overrides the TOML file that `UPONCE_CONFIG`
names. uponce reads `.env` because operators expect that: their compose files and frameworks read the same file. uponce
takes only the lines that begin with `UPONCE_`, since such a file often belongs to another program as well.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from uponce.core.errors import SettingRefused

PREFIX = "UPONCE_"
ENCODING = "utf-8-sig"  # some editors begin a file with a byte order mark
ENV_FILE = ".env"
# In the environment of workers. It has every setting that the server started with, and files may have changed since.
RESOLVED = "_UPONCE_RESOLVED"


class Given(NamedTuple):
    """A setting's value as it was written, where it was written, and its name there."""

    value: Any
    source: str
    name: str


def read_sources(environ: Mapping[str, str] | None = None) -> dict[str, Given]:
    """Return the settings of all sources, by lower-case name. `environ` replaces the environment and `.env`.

    No file counts beside RESOLVED.
    """
    variables = os.environ if environ is None else environ
    own = {name: value for name, value in variables.items() if not _is_link(name, value)}
    given = _of_environment(own, "environment")
    if RESOLVED in variables:
        given.pop("config", None)
        return given
    if environ is None:
        given = _read_env_file(Path(ENV_FILE)) | given
    return _read_toml(given.pop("config", None)) | given


_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)=|\w+_PORT=(tcp|udp|sctp)://")


def _is_link(name: str, value: str) -> bool:
    """Return whether Kubernetes sets this variable in a pod, for a Service whose name begins with `uponce`."""
    return _LINK.match(f"{name}={value}") is not None


def _of_environment(variables: Mapping[str, str], source: str) -> dict[str, Given]:
    return {
        name.removeprefix(PREFIX).lower(): Given(value, source, name)
        for name, value in variables.items()
        if name.startswith(PREFIX)
    }


_ENV_LINE = re.compile(r"""\s*(?:export\s+)?(UPONCE_\w+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^'"#]*?))\s*(?:\s#.*)?""")


def _read_env_file(path: Path) -> dict[str, Given]:
    """Return the lines `UPONCE_NAME=value` of a `.env` file, with or without quotes. Other lines do not count."""
    try:
        lines = path.read_text(ENCODING).splitlines()
    except (FileNotFoundError, IsADirectoryError):  # `python -m venv .env` makes a folder
        return {}
    except (OSError, UnicodeDecodeError) as error:
        if not os.access(path.parent, os.X_OK):
            raise SettingRefused(
                f"This user may not enter the present folder, so a {path} in it cannot be read. Change to another "
                "folder, such as /."
            ) from error
        raise SettingRefused(f"The file {path} in this folder cannot be read: {error}. Fix it or move it.") from error
    variables = {}
    for number, line in enumerate(lines, 1):
        if not re.match(r"\s*(export\s+)?UPONCE_", line):
            continue
        match = _ENV_LINE.fullmatch(line)
        if match is None:
            raise SettingRefused(f"{path}, line {number}: write UPONCE_NAME=value, or UPONCE_NAME='value'.")
        variables[match[1]] = next(value for value in match.groups()[1:] if value is not None)
    return _of_environment(variables, f"{path} in this folder")


def _read_toml(file: Given | None) -> dict[str, Given]:
    if file is None:
        return {}
    try:
        read = tomllib.loads(Path(file.value).read_text(ENCODING))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingRefused(f"{PREFIX}CONFIG={file.value} cannot be read: {error}.") from error
    for name, value in read.items():
        if isinstance(value, dict):
            raise SettingRefused(
                f"{file.value} has a table [{name}]. Write all settings without a table, such as: port = 8000"
            )
    return {name: Given(value, file.value, name) for name, value in read.items()}
