"""Where the files of a test are."""

from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(quick_path: Path) -> Path:
    """In memory, not on the disk: no test here ends a machine."""
    return quick_path
