"""Small uploads that take their steps in groups: what they answer and leave is what streamed uploads do."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests import samples
from tests.app.failing import Failing
from tests.asgi import END, FORM, Answer, call, part, parts_of
from tests.world import OTHER_PNG, PNG, World
from uponce.app.ports import Body, Committed
from uponce.core.errors import OutcomeUnknown, StorageFull, StorageUnavailable, UponceError
from uponce.core.policy import Limits

# An answer that comes before the body has been read ends the connection.
NOT_COMPARED = frozenset({"x-request-id", "x-cld-error", "connection"})
RANDOM = frozenset({"asset_id", "version_id", "public_id", "url", "secure_url", "signature", "api_key"})
Case = Callable[[World], Answer]


def upload(file: bytes = PNG, kind: str = "auto", filename: str = "cat.png", **params: Any) -> Case:
    return lambda world: world.upload(world.sign(params), file, kind=kind, filename=filename)


def spent(world: World) -> Answer:
    fields = world.sign()
    assert world.upload(fields).status == 200
    return world.upload(fields, OTHER_PNG)


def revoked(world: World) -> Answer:
    fields = world.sign()
    grant = asyncio.run(_grant_of(world, fields))
    asyncio.run(world.database.revoke_grant(grant, grant_caller()))
    return world.upload(fields)


async def _grant_of(world: World, fields: dict[str, str]) -> Any:
    from uponce.app.authorise import verify_signed

    return (await verify_signed(world.services, "demo", fields)).grant


def grant_caller() -> Any:
    from uponce.core.values import Caller

    return Caller("192.0.2.9", "operator")


def forged(world: World) -> Answer:
    return world.upload({**world.sign(), "public_id": "another"})


def stale(world: World) -> Answer:
    fields = world.sign()
    world.clock.time += 4000
    return world.upload(fields)


def overwritten(world: World) -> Answer:
    assert world.upload(world.sign({"public_id": "cat"})).status == 200
    return world.upload(world.sign({"public_id": "cat"}), OTHER_PNG)


def existing(world: World) -> Answer:
    assert world.upload(world.sign({"public_id": "cat"})).status == 200
    return world.upload(world.sign({"public_id": "cat", "overwrite": "false"}), OTHER_PNG)


def _later(world: World, fields: dict[str, str]) -> Answer:
    world.clock.time += 4000
    return world.upload(fields, headers=KEYED)


KEYED = {"idempotency-key": "k"}


def keyed(world: World, *, other: bytes = PNG, later: float = 0, revoke: bool = False) -> Answer:
    """Upload under a key, then the same again."""
    fields = world.sign()
    assert world.upload(fields, headers=KEYED).status == 200
    world.clock.time += later
    if revoke:
        asyncio.run(world.database.revoke_grant(asyncio.run(_grant_of(world, fields)), grant_caller()))
    return world.upload(fields, other, headers=KEYED)


def another_key(world: World) -> Answer:
    fields = world.sign()
    assert world.upload(fields, headers=KEYED).status == 200
    return world.upload(fields, headers={"idempotency-key": "other"})


CASES: dict[str, Case] = {
    "repeated": keyed,
    "repeated with other bytes": lambda world: keyed(world, other=OTHER_PNG),
    "repeated when the time is over": lambda world: keyed(world, later=4000),
    "repeated with other bytes when the time is over": lambda world: keyed(world, other=OTHER_PNG, later=4000),
    "repeated after a revocation": lambda world: keyed(world, revoke=True),
    "repeated under another key": another_key,
    "keyed and stale": lambda world: _later(world, world.sign()),
    "a picture": upload(),
    "named": upload(public_id="cat", tags="a,b", context="k=v", folder="f"),
    "as image": upload(kind="image"),
    "raw": upload(b"text", "raw", "a.txt"),
    "auto of no format": upload(b"text", "auto", "a.txt"),
    "by its file name": upload(use_filename="true", unique_filename="false", filename="Łódź é.png"),
    "spent": spent,
    "revoked": revoked,
    "forged": forged,
    "stale": stale,
    "overwritten": overwritten,
    "existing": existing,
    "from another origin": upload(origin="https://a.example"),
    "from the signed origin": lambda world: world.upload(
        world.sign({"origin": "https://a.example"}), headers={"origin": "https://a.example"}
    ),
    "with the route again": lambda world: world.upload(
        {**world.sign(), "cloud_name": "demo", "resource_type": "image"}, kind="image"
    ),
    "raw of an allowed format": upload(b"text", "raw", "a.txt", allowed_formats="txt"),
    "raw of a format that is not allowed": upload(b"text", "raw", "a.csv", allowed_formats="txt"),
    "a wrong sha256": upload(sha256="0" * 64),
    "too large for max_bytes": upload(max_bytes="5"),
    "a format that is not allowed": upload(allowed_formats="jpg"),
    "not a video": upload(kind="video"),
    "empty": upload(b""),
    "an unknown parameter": upload(colour="red"),
    "an unsupported one": upload(eager="w_100"),
    "a bad value": upload(max_bytes="many"),
    "an unknown key": lambda world: world.upload({**world.sign(), "api_key": "999"}),
    "a key of another cloud": lambda world: world.upload(world.sign(key=world.foreign)),
    "an unknown cloud": lambda world: world.request(
        "POST",
        "/v1_1/nowhere/auto/upload",
        headers=FORM,
        chunks=[parts_of(world.sign()), part("file", PNG, "cat.png"), END],
    ),
    "no signature": lambda world: world.upload({"timestamp": "1", "api_key": world.browser.api_key}),
    "no fields": lambda world: world.upload({}),
    "a field twice": lambda world: world.post(
        parts_of(world.sign({"tags": "a"})), part("tags", "b"), part("file", PNG, "c.png"), END
    ),
    "a wrong resource type": lambda world: world.upload({**world.sign(), "resource_type": "raw"}),
    "fields after the file": lambda world: world.post(part("file", PNG, "c.png"), parts_of(world.sign()), END),
    "fields in the query": lambda world: world.post(part("file", PNG, "cat.png"), END, query=world.sign()),
    "fields on both sides": lambda world: world.post(
        part("file", PNG, "cat.png"), END, query={**world.sign(), "nonce": "x"}
    ),
    "uses left": lambda world: world.upload(world.sign(key=world.server)),
}


class InMemory:
    """The Publishable port."""

    def __init__(self, world: World, body: Body) -> None:
        self.key = world.services.ids.hex(32)
        self._world = world
        self._body = body

    async def publish(self, media_type: str = "") -> None:
        spooled = await self._world.blobs.receive(self.key)
        await spooled.write(bytes(self._body[0]))
        assert await spooled.seal() == self._body[1]
        await spooled.publish(media_type)

    async def discard(self) -> None:
        await self._world.blobs.delete(self.key)


def send_far(world: World) -> None:
    """Let small uploads go alone, from memory, as to a store that is far away."""

    world.whole_bodies = True
    world.swap(put_group=None, hold_small=lambda body: InMemory(world, body))


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[tuple[World, World, World]]:
    """By streams, through the pipeline, and to a store far away."""
    for name in "abc":
        (tmp_path / name).mkdir()
    streamed, grouped, far = (World(tmp_path / name) for name in "abc")
    grouped.whole_bodies = True
    send_far(far)
    yield streamed, grouped, far
    for world in (streamed, grouped, far):
        world.close()


def seen(world: World, answer: Answer) -> Any:
    """All that may be compared of an answer, and of what it left."""
    shown = {name: value for name, value in answer.json.items() if name not in RANDOM}
    text = str(shown)
    for key in (world.browser, world.server, world.foreign):
        text = text.replace(key.api_key, "KEY")
    headers = {name: value for name, value in answer.headers.items() if name not in NOT_COMPARED}
    traces = world.traces()
    events = [world.sql(f"SELECT count(*) FROM audit WHERE event = '{event}'") for event in ("spent", "refused")]
    counts = (len(traces.spooled), len(traces.blobs), traces.assets, traces.grants, events)
    text = text.replace("Got at least ", "Got ")  # more of a stream may follow than what has arrived
    return answer.status, _without_hex(text), {**headers, "content-length": ""}, counts


def _without_hex(text: str) -> str:
    import re

    return re.sub(r"[0-9a-f]{32,}", "HEX", re.sub(r"String to sign - '.*?'", "STRING", text))


@pytest.mark.parametrize("name", sorted(CASES))
def test_all_ways_answer_alike_and_leave_the_same(worlds: tuple[World, World, World], name: str) -> None:
    streamed, grouped, far = (seen(world, CASES[name](world)) for world in worlds)
    assert grouped == streamed
    assert far == streamed


def commits(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ways in which uploads were committed."""
    ways: list[str] = []
    for name in ("commit", "commit_arrival"):
        real = getattr(world.database, name)

        async def call(*args: Any, _real: Any = real, _name: str = name) -> Any:
            ways.append(_name)
            return await _real(*args)

        monkeypatch.setattr(world.database, name, call)
    return ways


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.whole_bodies = True
    yield world
    world.close()


@pytest.mark.parametrize(
    ("case", "way"),
    [
        (upload(), "commit_arrival"),
        (upload(b"text", "raw", "a.txt"), "commit_arrival"),
        (CASES["fields in the query"], "commit_arrival"),
        (CASES["fields after the file"], "commit_arrival"),
        (lambda world: world.upload(world.sign(), headers=KEYED), "commit_arrival"),
        (lambda world: world.put(PNG, world.sign()), "commit"),
    ],
)
def test_what_goes_which_way(world: World, monkeypatch: pytest.MonkeyPatch, case: Case, way: str) -> None:
    ways = commits(world, monkeypatch)
    assert case(world).status == 200
    assert ways == [way]


def test_a_larger_body_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, limits=Limits(small_body_bytes=2000))
    world.whole_bodies = True
    ways = commits(world, monkeypatch)
    assert world.upload(world.sign(), b"x" * 2000, kind="raw").status == 200
    assert world.upload(world.sign(), b"x", kind="raw").status == 200
    assert ways == ["commit", "commit_arrival"]
    world.close()


def test_bodies_on_their_way_to_a_store_have_a_bound_in_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it, uploads go through the spool."""
    send_far(world)
    real, begun = world.blobs.receive, list[str | None]()

    async def receive(key: str | None = None) -> Any:
        begun.append(key)
        return await real(key)

    monkeypatch.setattr(world.blobs, "receive", receive)
    memory = world.services.attempts.small
    assert memory.take(64 * 1024 * 1024 - len(PNG))
    for _ in range(2):
        assert world.upload(world.sign()).status == 200
    assert None not in begun
    assert memory.take(1)
    assert world.upload(world.sign()).status == 200
    assert begun[2:] == [None]


@pytest.mark.parametrize("error", [StorageFull("full"), StorageUnavailable("gone")])
def test_a_store_that_fails_spends_nothing(world: World, error: UponceError) -> None:
    def fail(_: object) -> None:
        raise error

    fields = world.sign()
    put_group = world.services.put_group
    world.swap(put_group=fail)
    with world.untouched():
        assert world.upload(fields).code == error.code
    world.swap(put_group=put_group)
    assert world.upload(fields).status == 200


class CommitFails:
    """The database, whose `commit_arrival` lets the steps run and then raises; `happened` it committed before."""

    def __init__(self, world: World, error: UponceError, *, happened: bool) -> None:
        self._real, self._error, self._happened = world.database, error, happened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def commit_arrival(self, arrival: Any, steps: Any, most: int) -> Committed:
        if self._happened:
            await self._real.commit_arrival(arrival, steps, most)
        else:
            await self._real.commit_arrival(arrival, lambda group, records: self._stop(steps(group, records)), most)
        raise self._error

    def _stop(self, made: Sequence[Any]) -> Sequence[Any]:
        return [self._error] * len(made)


@pytest.mark.parametrize("headers", [{}, KEYED], ids=["without a key", "with one"])
@pytest.mark.parametrize("happened", [True, False])
def test_an_unknown_outcome_is_read_back_and_deletes_nothing(
    world: World, happened: bool, headers: dict[str, str]
) -> None:
    database: Any = CommitFails(world, OutcomeUnknown("unknown"), happened=happened)
    world.swap(database=database)
    answer = world.upload(world.sign(), headers=headers)
    assert (answer.status, len(world.traces().blobs)) == (200 if happened else 503, 1)


def test_a_refusal_whose_outcome_is_unknown_is_no_defect(world: World) -> None:
    """A replay has nothing to read back: its client is asked to come again."""
    fields = world.sign()
    assert world.upload(fields).status == 200
    database: Any = CommitFails(world, OutcomeUnknown("unknown"), happened=False)
    world.swap(database=database)
    assert world.upload(fields, OTHER_PNG).code == "outcome_unknown"  # a new server has not seen this signature yet
    kept = world.traces().blobs
    answer = world.upload(fields, OTHER_PNG)
    assert (answer.status, answer.code, world.traces().blobs) == (503, "outcome_unknown", kept)


def test_a_commit_that_fails_leaves_no_bytes(world: World) -> None:
    database: Any = CommitFails(world, StorageFull("full"), happened=False)
    world.swap(database=database)
    with world.untouched():
        assert world.upload(world.sign()).code == "storage_full"


def test_no_trace_of_bytes_that_cannot_be_deleted_is_an_error(world: World) -> None:
    """What stays behind is the sweeper's."""
    fields = world.sign()
    assert world.upload(fields).status == 200
    world.swap(blobs=Failing(world.blobs, before={"delete": StorageUnavailable("gone")}))
    world.database.find_grant = None  # type: ignore[assignment, method-assign]
    assert world.upload(fields).code == "signature_used"


@pytest.mark.parametrize("max_uses", [1, 3])
def test_of_many_at_once_as_many_win_as_may(world: World, max_uses: int) -> None:
    fields = world.sign({"max_uses": max_uses} if max_uses > 1 else {}, key=world.browser)
    body = [parts_of(fields), part("file", samples.png(3, 16, 16), "c.png"), END]

    async def race() -> list[Answer]:
        work = (call(world.app, "POST", world.route(), headers=FORM, chunks=body, whole=True) for _ in range(20))
        return await asyncio.gather(*work)

    codes = sorted(answer.code for answer in asyncio.run(race()))
    assert codes == ["ok"] * max_uses + ["signature_used"] * (20 - max_uses)
    traces = world.traces()
    assert (len(traces.blobs), traces.grants) == (max_uses, 1)
    refused = world.sql("SELECT sum(count) FROM audit WHERE event = 'refused'")
    assert refused == 20 - max_uses


def test_a_script_may_sign_a_callback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ways, fields = commits(world, monkeypatch), world.sign({"callback": "https://a.example"})
    assert world.upload(fields, headers={"accept": "text/html"}).code == "unsupported_parameter"
    assert world.upload(fields, headers={"x-requested-with": "XMLHttpRequest"}).status == 200
    assert ways == ["commit_arrival"] * 2
