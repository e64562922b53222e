"""A request names the host that it calls: only well-formed text can say so."""

import pytest

from tests.world import World, assert_refused


@pytest.mark.parametrize("host", ["evil@good", "evil/x", "evil\\x", "", "a b", "a:99999", "a:", "[::1", "a" * 300])
def test_a_host_that_is_none_is_refused_and_spends_nothing(shared: World, host: str) -> None:
    with shared.untouched():
        answer = shared.upload(shared.sign(), headers={"host": host})
    assert_refused(answer, 400, "malformed_request")
    assert "Header Host" in answer.message


@pytest.mark.parametrize("host", ["media.example", "media.example:8443", "[::1]:8000", "10.0.0.1"])
def test_the_urls_of_an_answer_name_the_host_that_was_called(shared: World, host: str) -> None:
    answer = shared.upload(shared.sign(), headers={"host": host})
    assert answer.json["secure_url"].startswith(f"https://{host}/demo/")
