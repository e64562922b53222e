"""What holds for every test: property tests draw the same examples each time, controls say how many tries they took."""

import pytest
from hypothesis import settings

# No deadline for one example, since machines that share a core stall. The campaigns explore: they set their own seeds.
settings.register_profile("uponce", deadline=None, derandomize=True)
settings.load_profile("uponce")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeat the lines of the controls, which pytest keeps from those that pass."""
    lines = [
        line
        for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
        for line in report.capstdout.splitlines()
        if line.startswith("control: ")
    ]
    if lines:
        terminalreporter.section("controls")
        for line in lines:
            terminalreporter.write_line(line)
