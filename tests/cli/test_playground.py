"""Where `uponce serve` says that the playground is."""

import pytest

from uponce.cli.serve import _announce_playground
from uponce.config import Settings


@pytest.mark.parametrize(
    ("host", "page"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/playground"),
        ("::1", "http://localhost:8000/playground"),
        ("::", "http://localhost:8000/playground"),
    ],
)
def test_its_address_is_one_that_a_page_can_name(capsys: pytest.CaptureFixture[str], host: str, page: str) -> None:
    """The page allows its scripts by their address, and a Content-Security-Policy knows no IPv6."""
    _announce_playground(Settings(host=host, playground="local"), 8000)
    assert capsys.readouterr().out == f"playground at {page}\n"
