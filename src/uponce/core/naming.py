"""public_ids: which ones are allowed, and how uponce makes one from the parameters and the filename of an upload.

A public_id is a name in the catalog and never a path on disk. uponce refuses the characters ``?&#\\%<>+`` and the
double quote everywhere: with `&` in a public_id the response signature would itself be a valid upload signature.
"""

import re
import unicodedata
from dataclasses import dataclass

from uponce.core.errors import InvalidParameter, shown
from uponce.core.values import ResourceType

MAX_LENGTH = 255
# Before NFC. NFC makes one character of up to four (as of U+1F82). Its time grows with the square of the length of a
# run of combining marks.
MAX_WRITTEN_LENGTH = 4 * MAX_LENGTH
RANDOM_LENGTH = 20
UNIQUE_SUFFIX_LENGTH = 6
# uponce cuts a filename instead of refusing it. Name, suffix and folder together then fit into MAX_LENGTH.
_MAX_STEM = 200
_MAX_EXTENSION = 40

_FORBIDDEN = frozenset('?&#\\%<>+"')
# Controls, invisible formatting (direction marks, zero-width), surrogates, private use, unassigned, line ends.
_FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_ORDINARY = re.compile(f"[A-Za-z0-9_-]{{1,{MAX_LENGTH}}}")  # such a name passes every check
# Segments that a delivery URL reads as something else: a version, a signature.
_RESERVED_FIRST = re.compile(r"v[0-9]+|s--.*--")


def check_public_id(public_id: str, *, parameter: str = "public_id", is_folder: bool = False) -> str:
    """Return the public_id in Unicode form NFC. Raise InvalidParameter with the reason if it is not allowed."""
    if not is_folder and _ORDINARY.fullmatch(public_id):
        return public_id
    normal = unicodedata.normalize("NFC", public_id) if len(public_id) <= MAX_WRITTEN_LENGTH else public_id
    problem = _problem(normal, is_folder)
    if problem:
        raise InvalidParameter(f"{parameter} ({shown(public_id)}) is invalid: {problem}")
    return normal


def _problem(public_id: str, is_folder: bool) -> str | None:
    if len(public_id) > MAX_LENGTH:
        return f"it has {len(public_id)} characters, {MAX_LENGTH} are allowed"
    bad = next((char for char in public_id if _is_forbidden(char)), None)
    if bad is not None:
        code = f"U+{ord(bad):04X}"
        named = f"'{bad}' ({code})" if bad.isprintable() else code
        return f"the character {named} is not allowed"
    segments = public_id.split("/")
    if "" in segments:
        return "it begins or ends with '/', has '//' in it, or is empty"
    if "." in segments or ".." in segments:
        return "it has a '.' or '..' segment"
    if any(segment != segment.strip() or segment.endswith(".") for segment in segments):
        return "a segment begins or ends with a space, or ends with a dot"
    if (is_folder or len(segments) > 1) and _RESERVED_FIRST.fullmatch(segments[0]):
        return "its first folder looks like a version (v123) or a signature (s--…--)"
    return None


def _is_forbidden(char: str) -> bool:
    return char in _FORBIDDEN or unicodedata.category(char) in _FORBIDDEN_CATEGORIES


@dataclass(frozen=True, slots=True)
class Naming:
    """What an upload's parameters say about its name."""

    public_id: str | None = None
    public_id_prefix: str | None = None
    folder: str | None = None
    use_filename: bool = False
    unique_filename: bool = True
    filename_override: str | None = None

    def name(self, kind: ResourceType, filename: str | None, random: str, suffix: str) -> str:
        """Return the checked public_id of a new asset.

        `random` (20 characters) is the name if the parameters and the file give none. `suffix` (6) makes a filename
        unique. Raw assets keep the filename's extension in their public_id, images and videos do not.
        """
        return check_public_id(self.written(kind, filename, random, suffix))

    def written(self, kind: ResourceType, filename: str | None, random: str, suffix: str) -> str:
        """Return the public_id that `name` returns, unchecked: another server may allow it."""
        base = self.bare(kind, filename, random, suffix)
        return f"{above}{base.strip('/')}" if (above := self._above()) else base

    def bare(self, kind: ResourceType, filename: str | None, random: str, suffix: str) -> str:
        """Return what `written` returns, without folder and prefix."""
        source = self.filename_override or filename
        return self.public_id or self._from_filename(kind, source, suffix) or random + _extension(kind, source)

    def _above(self) -> str:
        return "".join(f"{name}/" for part in (self.folder, self.public_id_prefix) if (name := (part or "").strip("/")))

    def _from_filename(self, kind: ResourceType, source: str | None, suffix: str) -> str | None:
        if not self.use_filename or not source:
            return None
        unique = f"_{suffix}" if self.unique_filename else ""
        # The room for the stem is the same for each kind: a relay names an upload to `auto` before its kind is known.
        room = MAX_LENGTH - len(self._above() + unique + _extension(ResourceType.RAW, source))
        stem = _cleaned(split_filename(source)[0], min(max(room, 1), _MAX_STEM))
        return stem + unique + _extension(kind, source) if stem else None


def _extension(kind: ResourceType, filename: str | None) -> str:
    """Return `.pdf`, or an empty text if the kind keeps no extension or the cleaned extension is empty."""
    if kind is not ResourceType.RAW:
        return ""
    extension = _cleaned(split_filename(filename or "")[1], _MAX_EXTENSION)
    return f".{extension}" if extension else ""


def split_filename(filename: str) -> tuple[str, str]:
    """Return name and extension of the last path segment. Browsers and attackers send whole paths."""
    last = filename.replace("\\", "/").rpartition("/")[2]
    stem, dot, extension = last.rpartition(".")
    return (stem, extension) if dot and stem else (last, "")


def _cleaned(text: str, length: int) -> str:
    normal = unicodedata.normalize("NFC", text[:MAX_WRITTEN_LENGTH])
    allowed = "".join("_" if _is_forbidden(c) or c.isspace() else c for c in normal)
    return allowed.strip("_.")[:length].rstrip("_.")


def folder_of(public_id: str) -> str:
    """Return the text before the last `/`, or an empty text."""
    return public_id.rpartition("/")[0]
