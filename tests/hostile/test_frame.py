"""The battery's own tools: what they measure is there, and an honest client that is hindered is seen."""

import time
from pathlib import Path

import pytest

from tests import samples
from tests.hostile.frame import MIB, Honest, Slow, Waits, budget, check_beside, decoding, raw
from tests.server import Server


def test_bytes_go_as_they_are_and_all_answers_come_back(server: Server, honest: Honest) -> None:
    ask = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
    last = ask.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    heard = raw(server.base, ask, ask + last)
    assert (heard.statuses, heard.closed) == ([200, 200, 200], True)
    assert raw(server.base, ask[:10], then="reset").statuses == []
    honest.upload()


def test_a_hindered_client_is_seen() -> None:
    Waits([0.1, 0.2, 0.3]).check(worst=0.3, p50=0.2)
    for waits, seen in (
        (Waits([0.1] * 3, ["503"]), "503"),
        (Waits([0.1]), "only 1 honest uploads"),
        (Waits([0.1, 0.1, 1.1]), "p50 0.100 s, worst 1.100 s"),
        (Waits([0.1, 0.6, 0.7]), "p50 0.600 s, worst 0.700 s"),
    ):
        with pytest.raises(AssertionError, match=seen):
            waits.check(worst=1.0, p50=0.5)


SLOW = {"worst": Waits([0.1, 0.1, 1.1]), "p50": Waits([0.1, 0.6, 0.7]), "few": Waits([0.1])}


@pytest.mark.parametrize("slow", SLOW.values(), ids=SLOW)
def test_only_slowness_is_measured_again_and_not_for_ever(slow: Waits) -> None:
    rounds = iter([*[slow] * 4, Waits([0.1] * 3), *[slow] * 5, Waits([0.1] * 3, ["503"]), slow])
    check_beside(lambda: next(rounds), worst=1.0, p50=0.5)
    with pytest.raises(Slow):
        check_beside(lambda: next(rounds), worst=1.0, p50=0.5)
    with pytest.raises(AssertionError, match="503"):
        check_beside(lambda: next(rounds), worst=1.0, p50=0.5)
    assert list(rounds) == [slow]


@pytest.mark.proof
def test_what_a_server_and_its_decoders_take_is_measured(server: Server, honest: Honest) -> None:
    def measured() -> Waits:
        with honest.beside(pause=0.01, uploaders=2) as waits, budget(server.pid) as cost:
            time.sleep(2)
        assert cost.cpu > 0 and cost.wall >= 2 and 0 <= cost.memory < 256 * MIB
        if cost.cpu >= 8 or cost.wall >= 8:
            raise Slow(cost)
        return waits

    check_beside(measured, worst=1.0)


@pytest.mark.proof
def test_what_one_decoder_takes_is_measured(tmp_path: Path) -> None:
    cost = decoding(tmp_path, samples.mp4(3))
    assert cost.verdict == "mp4"
    assert cost.cpu > 0 and cost.wall > 0 and cost.memory > 10 * MIB
