"""The one table from errors to HTTP statuses."""

from base64 import b64encode
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.app.failing import Failing
from tests.world import PNG, QuickWorld, World
from uponce.core import errors
from uponce.core.errors import Refused, SettingRefused, Unavailable, UponceError
from uponce.web.errors import _ROWS, STATUS, TUS_ONLY, TUS_STATUS, status_of, tus_status_of

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, UponceError)]
LEAVES: set[type[UponceError]] = {error for error in CLASSES if not error.__subclasses__()}

# The uploader of the npm package shows the bodies of these only.
READABLE = {200, 400, 401, 404, 420, 500}
# What the SDKs take for something else, or retry on their own.
MISREAD = {403, 409, 410, 413, 420, 429}


def test_the_table_is_total_and_each_of_its_rows_is_needed() -> None:
    assert set(STATUS) == LEAVES
    used = {next(kind for kind in error.__mro__ if kind in _ROWS) for error in LEAVES}
    assert used == set(_ROWS)
    inner = {kind: next((_ROWS[above] for above in kind.__mro__[1:] if above in _ROWS), None) for kind in _ROWS}
    assert [kind for kind, above in inner.items() if _ROWS[kind] == above] == []


def test_what_a_person_has_to_read_is_shown_by_every_sdk() -> None:
    """Ranges and conditions are for clients that speak HTTP; SDKs do not speak tus."""
    told = {error: status for error, status in STATUS.items() if error not in TUS_ONLY}
    del told[errors.TooManyFailures]  # 429 is meant: a client waits, and tries again automatically
    refused = {status for error, status in told.items() if issubclass(error, Refused)}
    assert refused - {412, 416} <= READABLE
    assert not MISREAD & set(told.values())


def test_the_clients_fault_is_4xx_and_the_servers_is_5xx() -> None:
    assert {status // 100 for error, status in STATUS.items() if issubclass(error, Refused)} == {4}
    assert {status // 100 for error, status in STATUS.items() if not issubclass(error, Refused)} == {5}
    assert {status for error, status in STATUS.items() if issubclass(error, Unavailable)} == {503, 507}


# Clients and servers in front wait for as long as Retry-After says, and give up without it.
WAITING = {429, 503, 507}


def test_every_error_that_asks_to_wait_says_how_long() -> None:
    for table in (STATUS, TUS_STATUS):
        for error, status in table.items():
            assert status not in WAITING or error.retry_seconds, error


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path)
    yield world
    world.close()


@pytest.mark.parametrize("error", STATUS, ids=lambda error: error.__name__)
def test_every_answer_names_its_code_and_says_how_long_to_wait(world: World, error: type[UponceError]) -> None:
    """Whichever error, wherever it is raised, on every kind of route."""
    failing = error("Say it.", detail="private")
    calls = ("find_key", "find_asset", "find_series", "list_grants", "ping")
    world.swap(database=Failing(world.database, before=dict.fromkeys(calls, failing)))
    credentials = b64encode(f"{world.server.api_key}:{world.server.secrets[0]}".encode()).decode()
    answers = [
        world.upload(world.sign()),
        world.put(PNG, world.sign()),
        world.get("/demo/image/upload/v1/cat.png"),
        world.get("/v1_1/demo/signatures", authorization=f"Basic {credentials}"),
        world.request("HEAD", f"/tus/demo/{'0' * 32}", headers={"tus-resumable": "1.0.0"}),
        world.get("/readyz"),
    ]
    for answer in answers:
        assert answer.status >= 400, answer
        assert answer.status not in WAITING or int(answer.headers["retry-after"]) > 0, answer
        assert b"private" not in answer.body
    for answer in answers[:-1]:  # an answer to HEAD has no body
        assert answer.headers["x-cld-error-code"] == (answer.code if answer.body else "not_found")
    assert answers[-1].status == 503


def test_a_client_does_not_get_the_words_for_the_operator(world: World) -> None:
    """A secret that cannot be read is found by a request, when another server with another key made it."""
    refused = SettingRefused("Copy secret.key from a backup.")
    world.swap(database=Failing(world.database, before={"find_key": refused}))
    answer = world.upload(world.sign())
    assert (answer.status, answer.code) == (503, "database_unavailable")
    assert b"secret.key" not in answer.body
    assert "operator" in answer.headers["x-cld-error"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.SignatureUsed, 400),
        (errors.StaleRequest, 400),
        (errors.FileTooLarge, 400),
        (errors.RequestTooSlow, 400),
        (errors.InvalidSignature, 401),
        (errors.UnknownApiKey, 401),
        (errors.DeliveryDenied, 401),
        (errors.NotFound, 404),
        (errors.RangeNotSatisfiable, 416),
        (errors.DatabaseUnavailable, 503),
        (errors.StorageFull, 507),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value),
)
def test_statuses_that_clients_depend_on(error: type[UponceError], status: int) -> None:
    assert status_of(error("…")) == status
    assert HTTPStatus(status)


def test_a_tus_client_goes_on_after_a_stall() -> None:
    """tus-java-client does so only after 423 and 5xx."""
    assert tus_status_of(errors.RequestTooSlow("…")) == tus_status_of(errors.ChunkInProgress("…")) == 423
