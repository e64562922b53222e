"""Where the files of a test are."""

from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(quick_path: Path) -> Path:
    """Not on a disk: no test here ends a machine."""
    return quick_path
