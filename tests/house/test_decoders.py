"""Decoders of JSON are made at import, by one thread."""

import ast
import subprocess
import sys
from pathlib import Path

import uponce

SOURCES = sorted(Path(uponce.__file__).parent.rglob("*.py"))
ALONE = {"worker.py"}  # a process with one thread

RACE = """
import sys, threading, msgspec
from uponce.core.values import MediaFacts

sys.setswitchinterval(1e-6)
facts = b'{"kind":"image","format":"jpg","width":640,"height":480,"pages":1,"timed":null}'
decoder = msgspec.json.Decoder(MediaFacts)
start = threading.Barrier(4)

def decode():
    start.wait()
    decoder.decode(facts)

threads = [threading.Thread(target=decode) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_nothing_is_decoded_to_a_type_that_msgspec_may_meet_in_two_threads_at_once() -> None:
    """msgspec 0.22 then dies of a half-built type: seen in a server that had been killed and started again."""
    typed = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        if path.name not in ALONE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "msgspec.json.decode"
        and any(keyword.arg == "type" for keyword in node.keywords)
    ]
    assert not typed


def test_decoders_made_before_the_threads_are_safe() -> None:
    """With `msgspec.json.decode(facts, type=MediaFacts)` in the threads, about one in fifteen of these dies."""
    assert [subprocess.run([sys.executable, "-c", RACE], check=False).returncode for _ in range(10)] == [0] * 10
