"""Deliveries with a condition: the file if it has changed, if it has not, or the rest of it."""

from email.utils import parsedate_to_datetime

import pytest

from tests.web.test_delivery import RAW, raw, store
from tests.world import PNG, World


def test_conditional_requests(shared: World) -> None:
    asset = store(shared)
    etag, date = f'"{asset["etag"]}"', "Thu, 01 Jan 2026 00:00:00 GMT"
    cases = [
        ({"if_none_match": etag}, 304),
        ({"if_none_match": f'"x", W/{etag}'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_none_match": '"x"', "if_modified_since": date}, 200),
        ({"if_modified_since": date}, 304),
        ({"if_modified_since": "Fri, 02 Jan 2026 00:00:00 GMT"}, 304),
        ({"if_modified_since": "Wed, 31 Dec 2025 23:59:59 GMT"}, 200),
        ({"if_modified_since": "yesterday"}, 200),
        ({"if_modified_since": "Fri, 99 Jan 99999 00:00:00 GMT"}, 200),
    ]
    for headers, status in cases:
        answer = shared.get(asset["path"], **headers)
        assert (answer.status, answer.body) == (status, PNG if status == 200 else b""), headers
        assert answer.headers["etag"] == etag


def test_no_answer_is_modified_later_than_it_is_sent(world: World) -> None:
    """RFC 9110 §8.8.2.1: each overwrite within one second moves the version further ahead of the clock."""
    for _ in range(3):
        asset = store(world, public_id="cat")
    first = asset["version"] - 2
    for second in range(4):
        world.clock.time = first + second
        modified = world.get(asset["path"]).headers["last-modified"]
        assert parsedate_to_datetime(modified).timestamp() == min(first + second, asset["version"])


def test_tags_on_several_lines_are_one_list(shared: World) -> None:
    asset = store(shared)
    lines = [("if-none-match", '"x"'), ("if-none-match", f'"{asset["etag"]}"')]
    assert shared.request("GET", asset["path"], headers=lines).status == 304


def test_a_request_for_another_file_gets_412(shared: World) -> None:
    """So a download that goes on where it broke never joins two files."""
    asset = raw(shared)
    etag, date = f'"{asset["etag"]}"', "Thu, 01 Jan 2026 00:00:00 GMT"
    before = "Wed, 31 Dec 2025 23:59:59 GMT"
    cases = [
        ({"if_match": etag}, 206),
        ({"if_match": f'"x", {etag}'}, 206),
        ({"if_match": "*"}, 206),
        ({"if_match": '"x"'}, 412),
        ({"if_match": f"W/{etag}"}, 412),
        ({"if_match": '"x"', "if_none_match": etag}, 412),
        ({"if_match": etag, "if_none_match": etag}, 304),
        ({"if_match": etag, "if_unmodified_since": before}, 206),
        ({"if_unmodified_since": date}, 206),
        ({"if_unmodified_since": before}, 412),
        ({"if_unmodified_since": "yesterday"}, 206),
    ]
    for headers, status in cases:
        answer = shared.get(asset["path"], range="bytes=5-9", **headers)
        assert answer.status == status, headers
        assert status != 412 or answer.json["error"]["code"] == "precondition_failed"


def test_if_range_decides_whether_a_range_still_applies(shared: World) -> None:
    asset = raw(shared)
    etag, date = f'"{asset["etag"]}"', "Thu, 01 Jan 2026 00:00:00 GMT"
    for condition, status in ((etag, 206), (date, 206), (f"W/{etag}", 200), ('"old"', 200), ("rubbish", 200)):
        answer = shared.get(asset["path"], range="bytes=0-3", if_range=condition)
        assert (answer.status, answer.body) == (status, RAW[:4] if status == 206 else RAW), condition


@pytest.mark.parametrize("date", ["Thu Jan  1 00:00:00 2026", "Thu, 01 Jan 2026 00:00:00 -0000"])
def test_a_date_without_a_zone_is_utc(shared: World, new_york: None, date: str) -> None:
    """RFC 9110 §5.6.7: the form of asctime is in UTC too."""
    asset = raw(shared)
    assert shared.get(asset["path"], if_modified_since=date).status == 304
    assert shared.get(asset["path"], if_modified_since=date.replace("2026", "2025")).status == 200
    assert shared.get(asset["path"], range="bytes=0-3", if_range=date).status == 206
    assert shared.get(asset["path"], if_unmodified_since=date).status == 200
