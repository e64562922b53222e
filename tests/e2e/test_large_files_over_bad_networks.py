"""Chunks over a network that breaks, by the clients that people have: one asset in the end, clear answers before.

tus has its own such tests beside its clients; the `series` campaign sends a thousand.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest
import urllib3
from cloudinary import uploader
from cloudinary.exceptions import Error

from proof.faults.audit import count
from proof.faults.proxy import Fault, FaultProxy, Kind
from tests.chunks import headers, spans
from tests.e2e import test_large_files
from tests.e2e.conftest import NODE
from tests.e2e.test_large_files import CHUNK, GUIDE, MB, Json, by_curl, data, folder
from tests.e2e.test_python_sdk import options
from tests.e2e.test_readme import block
from tests.server import Server

__all__ = ["data", "folder"]  # the fixtures of the neighbour

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("large files")]

BROKEN = [
    Fault(Kind.CUT, after=2 * MB, delay=0.1),
    Fault(Kind.RESET, after=8 * MB),
    Fault(Kind.SWALLOW, after=8 * MB),
    Fault(rate=40 * MB),
]
"""What happens to the first connections: in the first chunk, in another one, a lost reply, and one that crawls."""


def plan(number: int) -> Fault:
    return BROKEN[number - 1] if number <= len(BROKEN) else Fault()


def assert_stored(server: Server, bad: FaultProxy, answer: Json, data: bytes, public_id: str) -> None:
    """Its URL leads through the network that was bad, as the client had called it."""
    direct = answer | {"secure_url": answer["secure_url"].replace(bad.base, server.base)}
    test_large_files.assert_stored(server, direct, data)
    assert count(server.data_dir, f"assets WHERE public_id = '{public_id}'") == 1


def assert_broken(bad: FaultProxy) -> None:
    assert {kind for kind in (Kind.CUT, Kind.RESET, Kind.SWALLOW) if bad.struck[kind]} == {
        Kind.CUT,
        Kind.RESET,
        Kind.SWALLOW,
    }


@pytest.mark.parametrize("key", ["browser", "server"])
def test_the_python_sdk_called_again(server: Server, folder: Path, data: bytes, key: str) -> None:
    """Each call is a separate upload. Those that broke have spent nothing and stored nothing."""
    name = f"bad-network-{key}"
    told: list[str] = []
    with FaultProxy(server.port, plan) as bad:

        def call() -> Json:
            with (folder / "film.mp4").open("rb") as file:
                known = options(server, getattr(server, key)) | {"upload_prefix": bad.base}
                answer: Json = uploader.upload_large(
                    file, resource_type="video", chunk_size=CHUNK, public_id=name, **known
                )
                return answer

        answer = insist(call, told, (Error, urllib3.exceptions.HTTPError))
        assert_broken(bad)
    assert_stored(server, bad, answer, data, name)
    assert len(told) == 3, told


@pytest.mark.parametrize("package", ["cloudinary-2-1-0", "cloudinary-newest"])
def test_the_node_sdk_called_again(server: Server, node: str, folder: Path, data: bytes, package: str) -> None:
    name = f"bad-network-{package}"
    how = {"resource_type": "video", "chunk_size": CHUNK, "public_id": name}
    with FaultProxy(server.port, plan) as bad:
        done = subprocess.run(
            [node, NODE / "large_again.cjs", package, folder / "film.mp4", json.dumps(how)],
            env={**os.environ, "CLOUDINARY_URL": server.urls[1].replace(server.base, bad.base)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert sum(bad.struck.values()) > 0
    *broken, answer = json.loads(done.stdout)
    assert broken
    assert_stored(server, bad, answer, data, name)


def test_the_page_of_the_guide_sends_a_slice_again(server: Server, node: str, folder: Path, data: bytes) -> None:
    """One signature for all of it."""
    fields = server.signed({"public_id": "bad-network-page"})
    with FaultProxy(server.port, plan) as bad:
        program = f"""
            {block(GUIDE, "js", "uploadInChunks")}
            const file = new File([require("fs").readFileSync("film.mp4")], "film.mp4");
            const url = {json.dumps(server.upload_url().replace(server.base, bad.base))};
            uploadInChunks(url, {json.dumps(fields)}, file, {{ size: {CHUNK}, pause: 50 }})
                .then((answer) => console.log(JSON.stringify(answer)));
        """
        done = subprocess.run(
            [node, "-e", program], cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert_broken(bad)
    assert_stored(server, bad, json.loads(done.stdout), data, "bad-network-page")


def test_the_curl_of_the_guide_sends_a_part_again(server: Server, curl: str, folder: Path, data: bytes) -> None:
    """A connection for each part."""
    faults = [Fault(), Fault(Kind.CUT, after=MB), Fault(Kind.RESET, after=2 * MB), Fault(Kind.SWALLOW, after=MB)]
    with FaultProxy(server.port, lambda number: faults[number - 1] if number <= len(faults) else Fault()) as bad:
        final = by_curl(folder, server.urls[0].replace(server.base, bad.base))
        assert_broken(bad)
    assert_stored(server, bad, final, data, final["public_id"])


def test_ten_at_a_time_each_again_until_it_is_answered(server: Server, data: bytes) -> None:
    """As Directus, and every third connection breaks in one of three ways. The chunk that has the total comes last."""
    fields = server.signed({"public_id": "bad-network-ten"})
    kinds = [Kind.CUT, Kind.RESET, Kind.SWALLOW]
    told: list[str] = []

    def breaks(number: int) -> Fault:
        return Fault(kinds[number // 3 % 3], after=3 * MB) if number % 3 == 0 else Fault()

    with FaultProxy(server.port, breaks) as bad:
        url = server.upload_url("video").replace(server.base, bad.base)

        def send(span: tuple[int, int]) -> Json:
            first, last = span
            total = len(data) if last == len(data) - 1 else -1
            sent = headers(first, last, total, "ten-over-a-bad-network")

            def call() -> Json:
                form: dict[str, str | tuple[str, bytes]] = {**fields, "file": ("film.mp4", data[first : last + 1])}
                with urllib3.PoolManager(retries=False) as pool:
                    answer: Json = pool.request("POST", url, fields=form, headers=sent).json()
                return answer

            return insist(call, told, (urllib3.exceptions.HTTPError, HTTPException))

        *most, last = spans(len(data), 5_500_000)
        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(send, reversed(most)))
        bad.plan = lambda number: Fault()  # a client that loses the last reply gets signature_used on a retry
        final = send(last)
        assert sum(bad.struck.values()) >= 1
    assert not any(answer["done"] for answer in answers)
    assert_stored(server, bad, final, data, "bad-network-ten")
    assert told


def insist(call: Callable[[], Json], told: list[str], lost: tuple[type[Exception], ...]) -> Json:
    """Its answer; what it said before that."""
    until = time.monotonic() + 180
    while True:
        try:
            return call()
        except lost as error:
            told.append(str(error))
            assert time.monotonic() < until, told
            time.sleep(1.1)  # another second, another signature
