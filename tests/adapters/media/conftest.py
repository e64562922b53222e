"""Pictures that need a decoder."""

from pathlib import Path

import pytest

from uponce.adapters.media import samples


@pytest.fixture
def webp(tmp_path: Path) -> str:
    path = tmp_path / "a"
    path.write_bytes(samples.webp(1))
    return str(path)


@pytest.fixture
def gif(tmp_path: Path) -> str:
    path = tmp_path / "b"
    path.write_bytes(samples.gif(1))
    return str(path)
