"""mutmut that also changes the bodies of operations and properties. It changes no other decorated function.

The decorator stays on the function that switches between the mutants. The copies that it switches between have none.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import libcst
from mutmut.mutation import file_mutation
from mutmut.mutation.file_mutation import Mutation, MutationVisitor

DECORATORS = frozenset({"operation", "property"})

_skips = MutationVisitor._skip_node_and_children
_arranged = file_mutation.function_trampoline_arrangement


def _is_known(node: libcst.CSTNode) -> bool:
    if not isinstance(node, libcst.FunctionDef) or len(node.decorators) != 1:
        return False
    made = node.decorators[0].decorator
    name = made.func if isinstance(made, libcst.Call) else made
    return isinstance(name, libcst.Name) and name.value in DECORATORS


def skips(self: MutationVisitor, node: libcst.CSTNode) -> bool:
    return not _is_known(node) and _skips(self, node)


def arranged(function: libcst.FunctionDef, mutants: Iterable[Mutation], class_name: str | None) -> Any:
    if not _is_known(function):
        return _arranged(function, mutants, class_name)
    before, found, *more = _arranged(function.with_changes(decorators=()), mutants, class_name)
    methods: Sequence[Any] = found
    switch = methods[0].with_changes(decorators=[*function.decorators, *methods[0].decorators])
    return (before, [switch, *methods[1:]], *more)


MutationVisitor._skip_node_and_children = skips  # type: ignore[method-assign]
file_mutation.function_trampoline_arrangement = arranged

if __name__ == "__main__":
    from mutmut.__main__ import cli  # it sets how this process starts others

    cli()
