"""Fields may stand before the file, behind it, around it and in the query: the outcome is one."""

from collections.abc import Callable, Mapping

import pytest

from tests.asgi import END, Answer, part, parts_of
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.core.policy import Limits

FILE = part("file", PNG, "cat.png")
Send = Callable[[World, dict[str, str]], Answer]


@pytest.fixture(autouse=True, params=[False, True], ids=["in pieces", "at once"])
def whole_bodies(request: pytest.FixtureRequest) -> None:
    """A small body that arrives whole is read in one step."""
    for name in {"world", "shared"} & {*request.fixturenames}:
        request.getfixturevalue(name).whole_bodies = request.param


def _split(fields: Mapping[str, str], *first: str) -> tuple[dict[str, str], dict[str, str]]:
    return {n: fields[n] for n in fields if n in first}, {n: fields[n] for n in fields if n not in first}


def _around(*first: str) -> Send:
    def send(world: World, fields: dict[str, str]) -> Answer:
        before, behind = _split(fields, *first)
        return world.post(parts_of(before), FILE, parts_of(behind), END)

    return send


def _query_and_body(world: World, fields: dict[str, str]) -> Answer:
    query, body = _split(fields, "timestamp", "signature")
    return world.post(parts_of(body), FILE, END, query=query)


def _query_and_behind(world: World, fields: dict[str, str]) -> Answer:
    query, behind = _split(fields, "tags", "api_key")
    return world.post(FILE, parts_of(behind), END, query=query)


ORDERS: dict[str, Send] = {
    "fields first": lambda world, fields: world.upload(fields),
    "reversed": lambda world, fields: world.upload(dict(reversed(fields.items()))),
    "file first": lambda world, fields: world.post(FILE, parts_of(fields), END),
    "credentials behind": _around("folder", "tags"),
    "signed fields behind": _around("timestamp", "signature", "api_key"),
    "one field behind": _around("timestamp", "signature", "api_key", "folder"),
    "all in the query": lambda world, fields: world.post(FILE, END, query=fields),
    "query and body": _query_and_body,
    "query and behind": _query_and_behind,
    "PUT": lambda world, fields: world.put(PNG, fields),
}


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_uploads_the_same_and_spends_the_signature(world: World, order: str) -> None:
    fields = world.sign({"folder": "cats", "tags": "a,b", "public_id": "tom"})
    answer = assert_accepted(ORDERS[order](world, fields)).json
    assert (answer["public_id"], answer["tags"], answer["bytes"]) == ("cats/tom", ["a", "b"], len(PNG))
    for again in ORDERS.values():
        assert_refused(again(world, fields), 400, "signature_used")
    assert world.traces().assets == 1


@pytest.mark.parametrize("order", ORDERS)
def test_no_order_lets_an_altered_parameter_through(shared: World, order: str) -> None:
    fields = shared.sign({"folder": "cats", "tags": "a,b"})
    with shared.untouched():
        assert_refused(ORDERS[order](shared, fields | {"folder": "dogs"}), 401, "invalid_signature")
    assert_accepted(shared.upload(fields))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["image", "raw", "auto", ""])
def test_a_field_names_the_type_where_the_url_says_auto(world: World, order: str, kind: str) -> None:
    """Go's SDK posts every upload to `auto`."""
    answer = assert_accepted(ORDERS[order](world, world.sign() | {"resource_type": kind}))
    assert answer.json["resource_type"] == ("raw" if kind == "raw" else "image")


@pytest.mark.parametrize("whole", [False, True])
def test_it_may_be_written_as_a_list(world: World, whole: bool) -> None:
    world.whole_bodies = whole
    answer = assert_accepted(world.upload(world.sign() | {"resource_type[]": "raw"}, kind="auto"))
    assert answer.json["resource_type"] == "raw"


@pytest.mark.parametrize("order", ORDERS)
def test_that_type_is_judged_like_one_in_the_url(world: World, order: str) -> None:
    world.swap(limits=Limits(max_raw_bytes=len(PNG) - 1))
    fields = world.sign()
    with world.untouched():
        for kind, code in (("video", "invalid_media"), ("raw", "file_too_large"), ("fetch", "invalid_parameter")):
            assert_refused(ORDERS[order](world, fields | {"resource_type": kind}), 400, code)
    assert_accepted(ORDERS[order](world, fields | {"resource_type": "image"}))


@pytest.mark.parametrize("name", ["callback", "callback[]"])
@pytest.mark.parametrize("in_query", [False, True])
def test_a_callback_is_refused_wherever_a_browsers_form_has_it(world: World, name: str, in_query: bool) -> None:
    signed = world.sign({"callback": "https://app.example/cors.html"})
    fields = {name if sent == "callback" else sent: value for sent, value in signed.items()}
    with world.untouched():
        form, query = parts_of({} if in_query else fields), fields if in_query else None
        answer = world.post(form, FILE, END, query=query, headers={"accept": "text/html,*/*"})
    assert_refused(answer, 400, "unsupported_parameter")
    assert "callback" in answer.message


def test_array_fields_are_joined_in_order(world: World) -> None:
    fields = world.sign({"tags": "b,a"})
    body = parts_of({name: value for name, value in fields.items() if name != "tags"})
    answer = world.post(part("tags[]", "b"), body, part("tags[]", "a"), FILE, END)
    assert assert_accepted(answer).json["tags"] == ["b", "a"]


def test_an_empty_parameter_counts_as_absent(world: World) -> None:
    fields = world.sign()
    answer = world.upload({**fields, "public_id": "", "tags": ""})
    assert assert_accepted(answer).json["tags"] == []


def test_a_file_before_its_fields_has_a_limit_that_others_do_not_have(world: World) -> None:
    world.swap(limits=Limits(max_unverified_bytes=len(PNG) - 1))
    fields = world.sign()
    assert_refused(ORDERS["file first"](world, fields), 400, "file_too_large")
    assert_accepted(world.upload(fields))


@pytest.mark.parametrize("name", ["public_id", "overwrite", "folder"])
def test_a_field_behind_a_verified_file_is_late_and_changes_nothing(shared: World, name: str) -> None:
    fields = shared.sign()
    with shared.untouched():
        answer = shared.post(parts_of(fields), FILE, part(name, "1"), END)
    assert_refused(answer, 400, "late_parameter")
    assert name in answer.message
    assert_accepted(shared.upload(fields))


def test_a_spent_signature_before_the_file_is_refused_before_the_file_is_read(world: World) -> None:
    """The body ends where the file would begin to flow, and the answer is there already."""
    world.whole_bodies = False
    fields = world.sign()
    assert_accepted(world.upload(fields))
    answer = world.post(parts_of(fields), FILE[: -len(PNG)], torn=True)
    assert_refused(answer, 400, "signature_used")
    assert "already used by an upload that completed at 2026-01-01 00:00:00 +0000" in answer.message
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [({"tags": "forged"}, 401, "invalid_signature"), ({"signature": ""}, 400, "missing_parameter")],
    ids=["wrong", "missing"],
)
def test_a_put_without_a_good_signature_is_refused_before_the_file_is_read(
    world: World, change: dict[str, str], status: int, code: str
) -> None:
    """No field can follow the query. The body ends where the file would begin, and the answer is there already."""
    world.whole_bodies = False
    answer = world.request("PUT", world.route("auto", world.sign() | change), torn=True)
    assert_refused(answer, status, code)
    assert answer.headers["connection"] == "close"
