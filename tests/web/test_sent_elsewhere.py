"""What uponce answers where nginx or a bucket sends the bytes. tests/e2e/test_front_server.py has nginx itself."""

from email.utils import formatdate

from tests.web.test_delivery import SIGNER, location_of, store, url_of
from tests.world import OTHER_PNG, PNG, World
from uponce.app.ports import Presigner


def test_nginx_gets_nothing_that_it_would_keep_for_its_own_error(world: World) -> None:
    path = store(world, public_id="cat")["path"]
    world.swap(location_of=location_of)
    assert "cache-control" not in world.get(path).headers


def test_uponce_itself_answers_what_nginx_would_judge_by_the_time_of_the_file(world: World) -> None:
    asset = store(world, public_id="cat")
    world.swap(location_of=location_of)
    date = world.get(asset["path"]).headers["last-modified"]
    for condition in ({"if_match": f'"{asset["etag"]}"'}, {"if_unmodified_since": date}):
        answer = world.get(asset["path"], **condition)
        assert (answer.status, answer.body, "x-accel-redirect" in answer.headers) == (200, PNG, False), condition


def test_nginx_gets_no_date_that_two_files_can_have(world: World) -> None:
    """Each overwrite within one second moves the version ahead of the clock. If-Range may name the date."""
    store(world, public_id="cat")
    newer = store(world, OTHER_PNG, public_id="cat")
    world.swap(location_of=location_of)
    assert "last-modified" not in world.get(newer["path"]).headers
    world.clock.time = newer["version"]
    assert "last-modified" in world.get(newer["path"]).headers


def test_where_the_bucket_sends_the_bytes_no_answer_has_other_validators(world: World) -> None:
    """A HEAD had the tag of uponce, and the GET that of the bucket, under one URL."""
    path = store(world, public_id="cat")["path"]
    world.swap(presigner=SIGNER)
    for method, conditions, status in (("HEAD", {}, 200), ("HEAD", {"if-none-match": "*"}, 304), ("GET", {}, 302)):
        answer = world.request(method, path, headers=conditions)
        assert (answer.status, {"etag", "last-modified"} & answer.headers.keys()) == (status, set())
    assert world.request("HEAD", path).headers["content-length"] == str(len(PNG))


def test_a_bucket_answers_conditions_itself(world: World) -> None:
    """A server ignores conditions if it would answer with a redirect (RFC 9110 §13.2.1)."""
    asset = store(world, public_id="cat")
    world.swap(presigner=SIGNER)
    for condition in ({"if_none_match": "*"}, {"if_modified_since": formatdate(world.clock.time + 60, usegmt=True)}):
        assert world.get(asset["path"], **condition).status == 302


def test_a_redirect_to_a_private_asset_is_kept_no_longer_than_its_bytes(world: World) -> None:
    asset = store(world, public_id="mine", type="private")
    world.swap(presigner=Presigner(604_800, url_of))
    assert world.get(asset["path"]).headers["cache-control"] == "private, no-transform, max-age=3600"


def test_an_answer_to_a_head_lives_no_longer_than_the_redirect(world: World) -> None:
    """A cache may give the redirect, whose URL ends soon, the life of a 304 to a HEAD (RFC 9111 §4.3.4)."""
    path = store(world, public_id="cat")["path"]
    world.swap(presigner=SIGNER)
    redirect = world.get(path).headers["cache-control"]
    for conditions in ({}, {"if-none-match": "*"}):
        assert world.request("HEAD", path, headers=conditions).headers["cache-control"] == redirect
