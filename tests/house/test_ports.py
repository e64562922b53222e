"""A port is a short list of methods, so what needs it can be tested with a short stand-in."""

import ast
from pathlib import Path

from uponce.app import ports

MOST = 10


def test_no_port_has_more_than_ten_methods_and_values() -> None:
    folder = Path(ports.__file__).parent
    classes = [
        node
        for path in folder.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Protocol" for base in node.bases)
    ]
    counts = {
        node.name: sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
        for node in classes
    }
    assert {"Ledger", "BlobStore", "Clock"} <= counts.keys()
    assert {name: count for name, count in counts.items() if count > MOST} == {}
