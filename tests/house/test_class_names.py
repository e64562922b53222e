"""One name means one thing: no two classes of the program have the same one, except a port and what keeps its word."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/uponce"
ALLOWED = {
    "Connection": "each engine of the database has one, and no module uses both",
    "Reply": "the answer of a server: the demo and `prove` each have a client of their own, for other needs",
}


def classes(text: str, where: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the name, the place and whether it is a port, of each class in a module's text."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            yield node.name, where, any("Protocol" in ast.unparse(base) for base in node.bases)


def of_source() -> Iterator[tuple[str, str, bool]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield from classes(path.read_text(), str(path.relative_to(SOURCE)))


def doubled(found: Iterator[tuple[str, str, bool]]) -> dict[str, list[str]]:
    """Return the places of each name that stands for several things. A port may have one name with its classes."""
    places, ports = defaultdict[str, list[str]](list), defaultdict[str, int](int)
    for name, where, is_port in found:
        places[name].append(where)
        ports[name] += is_port
    return {name: where for name, where in places.items() if len(where) > 1 and ports[name] != 1}


def test_no_two_classes_have_one_name() -> None:
    assert doubled(of_source()).keys() - ALLOWED.keys() == set()


def test_every_exception_is_needed() -> None:
    assert ALLOWED.keys() <= doubled(of_source()).keys()


def test_the_check_finds_a_name_of_two_meanings() -> None:
    port, one, other = "class Store(Protocol): ...", "class Store: ...", "class Reply: ..."
    assert doubled(iter([*classes(one, "a"), *classes(one, "b")])) == {"Store": ["a", "b"]}
    assert doubled(iter([*classes(port, "a"), *classes(port, "b")])) == {"Store": ["a", "b"]}
    assert doubled(iter([*classes(port, "a"), *classes(one, "b"), *classes(other, "c")])) == {}
