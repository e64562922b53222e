"""What uponce answers where nginx or a bucket sends the bytes. tests/e2e/test_front_server.py has nginx itself."""

from tests.web.test_delivery import SIGNER, location_of, store
from tests.world import OTHER_PNG, PNG, World


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
