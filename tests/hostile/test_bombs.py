"""Files made to hold a decoder: each has a budget of time and memory, and honest uploads beside them wait little."""

import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from math import inf
from pathlib import Path

import pytest
import urllib3

from tests import samples
from tests.hostile.bombs import BOMBS
from tests.hostile.frame import MIB, Honest, Waits, check_beside, decoding
from tests.server import Server
from uponce.adapters.media.sniff import read_ordinary
from uponce.adapters.media.videos import DECODERS
from uponce.core.policy import Limits

pytestmark = pytest.mark.proof

# A decoder may use 2 s for a file; its start takes the rest.
_CPU_SECONDS = 2.5
_TRIES = 5  # at most: other work on the machine only adds time
_MEMORY = 512 * MIB

AVIF = samples.avif(7, 64, 64)  # only a decoder can read it

FFMPEG_ALONE = """
import av, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]),) * 2)
av.open(open(sys.argv[1], "rb"), "r", format="mov")
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_stays_in_its_budget(tmp_path: Path, name: str) -> None:
    bomb, took = BOMBS[name](), list[float]()
    while not took or (min(took) > _CPU_SECONDS and len(took) < _TRIES):
        cost = decoding(tmp_path, bomb)
        print(f"{name}: {cost.cpu:.2f} s, {cost.memory // MIB} MiB, {cost.verdict}")
        assert cost.verdict
        assert cost.memory <= _MEMORY
        took.append(inf if cost.cut_off else cost.cpu)  # the limit ends every bomb, so its end alone proves nothing
    assert min(took) <= _CPU_SECONDS


def test_without_the_limit_a_bomb_takes_more_memory(tmp_path: Path) -> None:
    """The control: the budget can be missed."""
    assert decoding(tmp_path, BOMBS["jpeg of application data"](), memory_bytes=8192 * MIB).memory > _MEMORY


def test_with_the_defaults_of_ffmpeg_a_bomb_takes_more_time(tmp_path: Path) -> None:
    """The control of the time: the kernel ends FFmpeg after its budget."""
    bomb = tmp_path / "bomb"
    bomb.write_bytes(BOMBS["mp4 of 5,000 edits"]())
    ended = subprocess.run([sys.executable, "-c", FFMPEG_ALONE, str(bomb), str(int(_CPU_SECONDS))], check=False)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("signatures", [1, 8])
def test_honest_uploads_beside_bombs_wait_little(server: Server, honest: Honest, signatures: int) -> None:
    """They need a decoder too. 32 connections send a bomb of 61 KB again and again; a refusal spends nothing."""
    assert read_ordinary(AVIF, None, Limits()) is None
    refused = Counter[str]()
    bomb = BOMBS["mp4 of 5,000 edits"]().replace(b"jpeg", b"rle ")  # a codec that is refused, after all the work

    def besiege(fields: dict[str, str], over: threading.Event) -> None:
        pool = urllib3.PoolManager(retries=False, timeout=60)
        url = f"{honest.base}/v1_1/{server.cloud}/auto/upload"
        while not over.is_set():
            with suppress(urllib3.exceptions.HTTPError):
                answer = pool.request("POST", url, fields=[*fields.items(), ("file", ("x", bomb))])
                refused[fields["signature"]] += answer.json()["error"]["code"] == "invalid_media"

    def attack() -> Waits:
        over, deadline = threading.Event(), time.monotonic() + 120
        refused.clear()
        grants = [server.signed({"nonce": secrets.token_hex(8)}) for _ in range(signatures)]

        def reached() -> int:
            return min(refused[fields["signature"]] for fields in grants)

        threads = [threading.Thread(target=besiege, args=(fields, over)) for fields in grants * (32 // signatures)]
        for thread in threads:
            thread.start()
        try:
            with honest.beside(pause=0.3, uploaders=2, content=AVIF) as waits:
                time.sleep(15)
                while reached() < 5 and time.monotonic() < deadline:
                    time.sleep(0.1)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert reached() >= 5, "the bombs did not reach the decoders"
        return waits

    check_beside(attack, worst=2.0, p50=1.0, least=10)


def test_the_list_of_decoders_is_a_small_part_of_all() -> None:
    assert len(DECODERS) < 80
