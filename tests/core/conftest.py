"""Each test of the core reads parameters itself."""

import pytest

from uponce.core import parameters


@pytest.fixture(autouse=True)
def forgetful() -> None:
    """Forget what earlier tests read: a reader that a mutant changes must not be hidden behind an answer kept."""
    parameters._remembered.cache_clear()
