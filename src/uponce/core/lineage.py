"""Names of databases that replace one another.

A name is a random text, followed by those of the databases before it, the newest first. If two databases replace the
same one, neither of their names follows the other.
"""

# The storage gets the new name only at a sweep or a check for /readyz. In 150 s of failovers 16 names were too few.
_REMEMBERED = 63


def heir(text: str, name: str) -> str:
    """Return the name of a database that replaces the one with this name. `text` is random, without a dot."""
    return ".".join([text, *name.split(".")[:_REMEMBERED]])


def follows(name: str, earlier: str) -> bool:
    """Return whether the name is the earlier one, or its database replaced the one with the earlier name."""
    return not is_left(earlier) and earlier.partition(".")[0] in name.split(".")


def left(name: str) -> str:
    """Return the owner of a storage that the database with this name has left. No database has it, or follows it."""
    return f"left-{name.partition('.')[0]}"


def is_left(name: str) -> bool:
    """Return whether this is the owner of a storage that a database has left."""
    return name.startswith("left-")
