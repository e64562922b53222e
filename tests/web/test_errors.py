"""The one table from errors to HTTP statuses."""

from http import HTTPStatus

import pytest

from uponce.core import errors
from uponce.core.errors import Refused, Unavailable, UponceError
from uponce.web.errors import STATUS, TUS_ONLY, status_of

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, UponceError)]
LEAVES = {error for error in CLASSES if not error.__subclasses__()}

# The uploader of the npm package shows the bodies of these only.
READABLE = {200, 400, 401, 404, 420, 500}
# What the SDKs take for something else, or retry on their own.
MISREAD = {403, 409, 410, 413, 420, 429}


def test_the_table_is_total_and_has_nothing_else() -> None:
    assert set(STATUS) == LEAVES


def test_what_a_person_has_to_read_is_shown_by_every_sdk() -> None:
    """Ranges are for media players, which speak HTTP; SDKs do not speak tus."""
    told = {error: status for error, status in STATUS.items() if error not in TUS_ONLY}
    del told[errors.TooManyFailures]  # 429 is meant: a client waits, and tries again by itself
    refused = {status for error, status in told.items() if issubclass(error, Refused)}
    assert refused - {416} <= READABLE
    assert not MISREAD & set(told.values())


def test_the_clients_fault_is_4xx_and_the_servers_is_5xx() -> None:
    assert {status // 100 for error, status in STATUS.items() if issubclass(error, Refused)} == {4}
    assert {status // 100 for error, status in STATUS.items() if not issubclass(error, Refused)} == {5}
    assert {status for error, status in STATUS.items() if issubclass(error, Unavailable)} == {503, 507}


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
