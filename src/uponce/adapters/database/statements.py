"""The named statements of sql/*.sql, for each engine. For PostgreSQL, `merged` makes one statement of many."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import TypeAlias

_HEADING = re.compile(r"^-- (name|fragment|each \w+): (\w+)(!?)$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*$", re.MULTILINE)
_FRAGMENT = re.compile(r"(:?)@(\w+)")
_COLUMN = re.compile(r"@?\w+")  # a column, or a fragment of several columns
_BRACES = re.compile(r"\{(\w+)\}")
_BY_GRANT = re.compile(r"(?:grants\.)?grant_key = r\.p_grant_key")
_IN_LEDGER = re.compile(r"\b(?:FROM|JOIN|UPDATE) grants\b")
_PARAMETER = re.compile(r"(?<!:):([a-z_]\w*)")

_Part: TypeAlias = tuple[str, str, str, str]  # `name`, `fragment` or `each …`, its name, `!` or nothing, text

# Parameters that are no texts.
_INTEGERS = (
    "timestamp max_uses uses pending keep_until now spent_at revoked_at version created_at bytes at count last mark "
    "id window_seconds allow_v1 previous_until watermark start stop total shared arrived pending_at misses due_at "
    "bound tries dead one moment complete_before most"
)
_TYPES = dict.fromkeys(_INTEGERS.split(), "bigint") | dict.fromkeys(
    "grant_key key_hash secret previous_secret url_secret".split(), "bytea"
)
_TEXTS_THERE = frozenset({"api_keys"})  # the tables where `uses` is a text


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement with `:name` parameters. A `silent` one returns no rows. `names` are its parameters in order.

    A statement that `has_braces` must be `filled`. One `of_grant` finds rows of the ledger by their key.
    """

    name: str
    text: str
    silent: bool
    names: tuple[str, ...]
    writes: bool
    has_braces: bool
    of_grant: bool = False

    def filled(self, values: Mapping[str, object]) -> str:
        """Return the text with `{name}` replaced by numbers and identifiers, which cannot be parameters."""
        return _BRACES.sub(lambda match: _plain(values[match[1]]), self.text)


@cache
def load(engine: str) -> dict[str, Statement]:
    """Return the statements of one engine, by name."""
    parts = _parts(engine)
    fragments = _fragments(parts)
    found = [(name, mark, text, fragments) for kind, name, mark, text in parts if kind == "name"]
    for kind, name, mark, text in parts:
        if kind.startswith("each "):
            for row in _rows(fragments[kind.removeprefix("each ")]):
                found.append((f"{name}_{row['its_name']}", mark, text, {**fragments, **row}))
    return {name: _statement(name, _expanded(text, words), silent=bool(mark)) for name, mark, text, words in found}


def _rows(table: str) -> Iterator[Mapping[str, str]]:
    """Yield the fragments of each row, by the names in the first one."""
    names, *rows = ([cell.strip() for cell in line.split("|")] for line in table.splitlines())
    return (dict(zip(names, row, strict=True)) for row in rows)


def load_migrations(engine: str) -> list[str]:
    """Return the texts of the migrations by number. The first one makes version 1.

    A file of migrations/ comes first, then the file of the same name in <engine>/migrations/, in one text.
    """
    steps: dict[str, str] = {}
    for folder in ("migrations", f"{engine}/migrations"):
        for file in resources.files(__package__).joinpath(folder).iterdir():
            if file.name.endswith(".sql"):
                steps[file.name] = steps.get(file.name, "") + file.read_text()
    fragments = _fragments(_parts(engine))
    return [_expanded(steps[name], fragments) for name in sorted(steps)]


def positional(statement: Statement, text: str) -> str:
    """Return the text with `$n` for the n-th of the statement's parameters."""
    return _PARAMETER.sub(lambda match: f"${statement.names.index(match[1]) + 1}", text)


@lru_cache(1000)
def merged(statement: Statement, bounds: tuple[bytes, bytes] | None = None) -> str:
    """Return one statement that does for each row of the JSON in $1 what the given one does for its parameters.

    The rows of a SELECT begin with `n`, the number of the row that they are for. OFFSET 0 makes the server look each
    row up by an index, whatever its statistics say.

    All keys of grants are within the `bounds`: from the first one up to and not including the second one. So the server
    looks into the partition of that time, and locks no other.
    """
    types = {name: _type(statement, name) for name in statement.names}
    given = ", ".join(f"{name} {'text' if kind == 'bytea' else kind}" for name, kind in types.items())
    values = ", ".join(
        f"decode({name}, 'hex') AS p_{name}" if kind == "bytea" else f"{name} AS p_{name}"
        for name, kind in types.items()
    )
    rows = f"WITH r AS (SELECT n, {values} FROM jsonb_to_recordset(CAST($1 AS jsonb)) AS given(n bigint, {given}))"
    text = _PARAMETER.sub(r"r.p_\1", statement.text)
    if bounds is not None:
        low, high = (f"decode('{bound.hex()}', 'hex')" for bound in bounds)
        text = _BY_GRANT.sub(rf"\g<0> AND grants.grant_key >= {low} AND grants.grant_key < {high}", text, count=1)
    match text.split(None, 1)[0]:
        case "SELECT":
            return f"{rows} SELECT r.n, q.* FROM r CROSS JOIN LATERAL ({text} OFFSET 0) AS q"
        case "INSERT":
            return f"{rows} " + re.sub(
                r"VALUES \(([^()]*)\)", r"SELECT \1 FROM r WHERE true ORDER BY r.n", text, count=1
            )
        case "UPDATE":
            return f"{rows} " + text.replace("WHERE", "FROM r WHERE", 1)
        case "DELETE":
            return f"{rows} " + text.replace("WHERE", "USING r WHERE", 1)
    raise ValueError(f"{statement.name} cannot be merged")


def _parts(engine: str) -> Sequence[_Part]:
    sources = [resources.files(__package__).joinpath("sql", f"{part}.sql").read_text() for part in ("both", engine)]
    found: list[_Part] = []
    for source in sources:
        _, *split = _HEADING.split(source)
        for kind, name, mark, text in zip(*(split[number::4] for number in range(4)), strict=True):
            found.append((kind, name, mark, _COMMENT.sub("", text).strip().removesuffix(";")))
    return found


def _fragments(parts: Iterable[_Part]) -> Mapping[str, str]:
    return {name: text for kind, name, _, text in parts if kind == "fragment"}


def _expanded(text: str, fragments: Mapping[str, str]) -> str:
    while "@" in text:
        text = _FRAGMENT.sub(lambda match: _COLUMN.sub(rf"{match[1]}\g<0>", fragments[match[2]]), text)
    return text


def _statement(name: str, text: str, *, silent: bool) -> Statement:
    names = tuple(dict.fromkeys(_PARAMETER.findall(text)))
    writes, of_grant = not text.startswith("SELECT"), "grant_key" in names and _IN_LEDGER.search(text) is not None
    return Statement(name, text, silent, names, writes, "{" in text, of_grant)


def _type(statement: Statement, name: str) -> str:
    if name == "uses" and any(f" {table} " in statement.text for table in _TEXTS_THERE):
        return "text"
    return _TYPES.get(name, "text")


def _plain(value: object) -> str:
    if isinstance(value, int) or str(value).isidentifier():
        return str(value)
    raise ValueError(value)
