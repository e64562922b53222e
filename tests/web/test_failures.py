"""Wrong credentials are limited per address, and correct ones always pass."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asgi import Answer
from tests.world import QuickWorld, World, assert_accepted, assert_refused
from uponce.core.errors import BadCredentials, NotFound
from uponce.core.policy import Limits
from uponce.web.failures import FailedCredentials

LIMIT, SECONDS = 5, 60


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=Limits(max_failed_credentials=LIMIT, failed_credentials_seconds=SECONDS))
    yield world
    world.close()


def basic(user: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def wrong_password(world: World, guess: str = "guess") -> Answer:
    return world.request("GET", "/v1_1/demo/signatures", headers=basic(world.server.api_key, guess))


FAILURES: dict[str, Any] = {
    "a wrong password": wrong_password,
    "an unknown user": lambda w: w.request("GET", "/v1_1/demo/signatures", headers=basic("123456789012345", "a")),
    "no credentials": lambda w: w.request("GET", "/v1_1/demo/signatures"),
    "a wrong signature": lambda w: w.upload(w.sign() | {"signature": "0" * 40}),
    "an unknown api_key": lambda w: w.upload(w.sign() | {"api_key": "1"}),
    "a wrong signature by tus": lambda w: w.request(
        "POST", "/tus/demo/?api_key=1&signature=0&timestamp=1", headers={"tus-resumable": "1.0.0", "upload-length": "5"}
    ),
    "a wrong delivery signature": lambda w: w.get("/demo/image/private/s--AAAAAAAA--/a.png"),
}


@pytest.mark.parametrize("kind", FAILURES)
def test_after_the_limit_a_failure_is_429_and_says_how_long_to_wait(limited: World, kind: str) -> None:
    fail = FAILURES[kind]
    assert [fail(limited).status for _ in range(LIMIT)] == [401] * LIMIT
    limited.clock.time += 10
    with limited.untouched():
        answer = fail(limited)
    assert_refused(answer, 429, "too_many_failures")
    assert answer.headers["retry-after"] == str(SECONDS - 10)
    for number in (str(LIMIT), "192.0.2.7", str(SECONDS)):
        assert number in answer.message
    limited.clock.time += SECONDS - 10
    assert fail(limited).status == 401


def test_correct_credentials_pass_from_the_same_address(limited: World) -> None:
    """Behind one address there may be a whole office, or all clients of a proxy that no setting names."""
    asset = assert_accepted(limited.upload(limited.sign({"type": "private"}))).json
    for _ in range(LIMIT * 3):
        wrong_password(limited)
    assert wrong_password(limited).status == 429
    headers = basic(limited.server.api_key, limited.server.secrets[0])
    assert limited.request("GET", "/v1_1/demo/signatures", headers=headers).status == 200
    assert_accepted(limited.upload(limited.sign()))
    assert limited.get(asset["url"].removeprefix("https://media.example")).status == 200
    assert limited.get("/demo/image/upload/none.png").status == 404


def test_addresses_are_counted_apart_and_an_ipv6_network_as_one(limited: World) -> None:
    failures, error = FailedCredentials(limited.services.limits, limited.clock), BadCredentials("…")
    for number in range(LIMIT):
        assert failures.judge(f"2001:db8::{number}", error) is error
    assert failures.judge("2001:db8::ffff", error).code == "too_many_failures"
    assert failures.judge("2001:db8:0:1::1", error) is error
    assert failures.judge("192.0.2.8", error) is error


def test_other_refusals_are_not_counted(limited: World) -> None:
    failures, error = FailedCredentials(limited.services.limits, limited.clock), NotFound("…")
    assert all(failures.judge("192.0.2.7", error) is error for _ in range(LIMIT * 2))


def test_memory_is_bounded_whatever_addresses_come(limited: World) -> None:
    failures, error = FailedCredentials(limited.services.limits, limited.clock), BadCredentials("…")
    for number in range(12_000):
        failures.judge(f"10.0.{number >> 8}.{number & 255}", error)
    assert len(failures._counts) == 10_000


@pytest.mark.parametrize("user", ["browser", "foreign", "none"])
def test_the_same_work_is_done_for_every_api_key(world: World, user: str) -> None:
    """Time would else tell which keys exist."""
    asked: list[str] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            return getattr(world.database, name)

    api_key = {"browser": world.browser.api_key, "foreign": world.foreign.api_key, "none": "123456789012345"}[user]
    world.swap(database=Watched())
    assert world.request("GET", "/v1_1/demo/signatures", headers=basic(api_key, "guess")).status == 401
    assert asked == ["find_key", "has_cloud"]


def test_only_the_key_of_the_credentials_is_decrypted(world: World) -> None:
    """A cloud may have many keys. The secret of another key may even be lost."""
    world.sql(f"UPDATE api_keys SET secret = x'00' WHERE api_key = '{world.browser.api_key}'")
    own = basic(world.server.api_key, world.server.secrets[0])
    assert_accepted(world.request("GET", "/v1_1/demo/ping", headers=own))
