"""Test processes of one machine give their servers different ports, also while such a server is dead."""

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

# Enough that two processes without claims have some of them in common.
COUNT = 600
DRAW = f"""
import sys
from tests.server import lasting_port
print(*(lasting_port() for _ in range({COUNT})), flush=True)
sys.stdin.read()
"""


def test_no_two_test_processes_draw_the_same_port() -> None:
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", DRAW],
                    cwd=Path(__file__).parents[1],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for _ in range(3)
        ]
        drawn = [process.stdout.readline().split() for process in processes if process.stdout]
    ports = {port for each in drawn for port in each}
    assert [len(each) for each in drawn] == [COUNT] * 3
    assert len(ports) == 3 * COUNT
