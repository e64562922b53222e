"""Pictures that need a decoder."""

from pathlib import Path

import pytest

from tests import samples


@pytest.fixture
def avif(tmp_path: Path) -> str:
    path = tmp_path / "a"
    path.write_bytes(samples.avif(1))
    return str(path)


@pytest.fixture
def tiff(tmp_path: Path) -> str:
    path = tmp_path / "b"
    path.write_bytes(samples.tiff(1))
    return str(path)
