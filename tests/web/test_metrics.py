"""`/metrics`: which clients may read it, what it shows, and what it never shows."""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.app.failing import Failing, Held
from tests.asgi import END, FORM, Answer, call, part, parts_of
from tests.chunks import form, headers
from tests.scrape import BEARER, TOKEN, Scraped
from tests.tus import VERSION, Client, play
from tests.world import PNG, QuickWorld, World, assert_accepted, assert_refused
from uponce.adapters.metrics import PrometheusMetrics
from uponce.app.ports import Waiting
from uponce.app.sweep import purge, sweep
from uponce.config import load
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, SettingRefused, StorageUnavailable
from uponce.core.policy import Limits
from uponce.web import operators
from uponce.web.operators import Scrape

UPLOAD = "/v1_1/{cloud}/{resource_type}/upload"
LABELS = {"version", "server", "outcome", "route", "method", "status", "work", "le"}


class Watched(QuickWorld):
    """A server whose metrics are on."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, limits=Limits(min_chunk_bytes=1000))
        self.metrics = PrometheusMetrics("1.2.3", "server-1")
        self.swap(metrics=self.metrics)

    def swap(self, **ports: object) -> None:
        self.use(replace(self.services, **ports), Scrape(TOKEN, self.metrics.text))  # type: ignore[arg-type]

    def scrape(self) -> Scraped:
        answer = self.get("/metrics", **BEARER)
        assert answer.status == 200, answer.body
        return Scraped(answer.body.decode())


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    world = Watched(tmp_path)
    yield world
    world.close()


def test_what_waits_is_shown(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the database says, at the moment of the scrape. Without the database, what was counted last."""

    async def counted() -> Waiting:
        return Waiting(3, 7, 1)

    def shown() -> list[float]:
        scraped = watched.scrape()
        return [scraped.value(f"uponce_{name}") for name in ("pending_uploads", "live_effects", "dead_effects")]

    assert shown() == [0, 0, 0]
    monkeypatch.setattr(watched.database, "count_waiting", counted)
    assert shown() == [3, 7, 1]
    watched.swap(database=Failing(watched.database, before={"count_waiting": DatabaseUnavailable("gone")}))
    assert shown() == [3, 7, 1]


def test_a_database_that_hangs_does_not_hold_the_metrics_back(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "_COUNT_SECONDS", 0.05)
    watched.swap(database=Held(watched.database, "count_waiting"))
    assert watched.scrape().value("uponce_pending_uploads") == 0


def test_without_a_token_there_is_nothing_at_that_address(world: World) -> None:
    """The answer is the one of any other address."""
    for told in ({}, BEARER, {"authorization": "Bearer "}):
        answer, elsewhere = world.get("/metrics", **told), world.get("/elsewhere", **told)
        assert_refused(answer, 404, "not_found")
        assert answer.body == elsewhere.body


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer  {TOKEN}",
        "Bearer ü",
        f"Bearer {TOKEN}ü",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_not_the_token_is_told_so(watched: Watched, method: str, authorization: str | None) -> None:
    told = {} if authorization is None else {"authorization": authorization}
    answer = watched.request(method, f"/metrics?token={TOKEN}", headers=told)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert b"uponce_" not in answer.body
    if method == "GET":
        assert_refused(answer, 401, "bad_token")


def test_who_has_the_token_may_read(watched: Watched) -> None:
    read, head = (watched.request(method, "/metrics", headers=BEARER) for method in ("GET", "HEAD"))
    assert (read.status, head.status, head.body) == (200, 200, b"")
    assert read.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert read.headers["cache-control"] == "no-store"
    assert int(read.headers["content-length"]) == len(read.body) > 0
    assert watched.request("GET", "/metrics", headers={"authorization": f"bearer {TOKEN}"}).status == 200
    assert watched.request("POST", "/metrics", headers=BEARER).status == 405


def test_the_text_is_what_prometheus_reads(watched: Watched) -> None:
    """Names with units, counters that end in _total, no label that is not meant to be there."""
    assert_accepted(watched.upload(watched.sign()))
    scraped = watched.scrape()
    assert scraped.value("uponce_build_info", version="1.2.3", server="server-1") == 1
    assert {family.type for family in scraped.families} == {"counter", "gauge", "histogram"}
    for family in scraped.families:
        assert re.fullmatch(r"uponce_[a-z_]+(_info|_seconds|_bytes|_in_progress|s)", family.name), family.name
        assert family.documentation
    for sample in scraped.samples:
        assert set(sample.labels) <= LABELS
        assert math.isfinite(sample.value)
        assert "_created" not in sample.name


def test_uploads_are_told_by_what_became_of_them(watched: Watched) -> None:
    fields, forged = watched.sign(), {**watched.sign(), "signature": "0" * 40}
    assert_accepted(watched.upload(fields))
    assert_accepted(watched.put(PNG, watched.sign()))
    assert watched.upload(fields).code == "signature_used"
    assert watched.upload(fields).code == "signature_used"
    assert watched.upload(forged).code == "invalid_signature"
    assert watched.post(parts_of(watched.sign()), torn=True).code == "malformed_request"
    assert watched.upload(watched.sign(), kind="sound").code == "not_found"
    for method in ("OPTIONS", "GET", "DELETE"):
        assert watched.request(method, watched.route()).status == 405
    for method in ("GET", "HEAD", "DELETE"):
        assert watched.request(method, f"/tus/demo/{'0' * 64}/gone", headers=VERSION).status == 404
    assert watched.scrape().outcomes() == {
        "ok": 2,
        "signature_used": 2,
        "invalid_signature": 1,
        "malformed_request": 1,
        "not_found": 1,
    }


def test_an_answer_that_is_told_again_is_no_other_upload(watched: Watched) -> None:
    fields = watched.sign()
    for replayed in (False, True):
        answer = assert_accepted(watched.upload(fields, headers={"idempotency-key": "once"}))
        assert ("idempotent-replayed" in answer.headers) is replayed
    assert watched.scrape().outcomes() == {"ok": 1}


def test_nor_when_both_are_committed_at_one_moment(watched: Watched) -> None:
    held = Held(watched.database, "commit")
    watched.swap(database=held)
    body = [parts_of(watched.sign()), part("file", PNG, "cat.png"), END]

    async def play() -> list[Answer]:
        told = {**FORM, "idempotency-key": "once"}
        uploads = [
            asyncio.ensure_future(call(watched.app, "POST", watched.route(), headers=told, chunks=body))
            for _ in range(2)
        ]
        while held.waiting < 2:
            await asyncio.sleep(0.01)
        held.release.set()
        return await asyncio.gather(*uploads)

    answers = asyncio.run(play())
    assert sorted("idempotent-replayed" in assert_accepted(answer).headers for answer in answers) == [False, True]
    assert watched.scrape().outcomes() == {"ok": 1}


def test_an_upload_in_chunks_is_one(watched: Watched) -> None:
    fields, data = watched.sign(), bytes(2500)

    def send(first: int, last: int) -> Answer:
        told = headers(first, last, len(data), "film")
        return watched.post(*form(fields, data[first : last + 1]), kind="raw", headers=told)

    assert_accepted(send(0, 999))
    assert send(1000, 1200).code == "chunk_too_small"
    assert_accepted(send(1000, 1999))
    assert watched.scrape().outcomes() == {"chunk_too_small": 1}
    assert_accepted(send(2000, 2499))
    assert watched.scrape().outcomes() == {"chunk_too_small": 1, "ok": 1}


def test_an_upload_by_tus_is_one(watched: Watched) -> None:
    client = Client(watched, bytes(2500))
    play(client.create, lambda: client.patch(0, 1000), client.head, lambda: client.patch(500), client.head)
    assert watched.scrape().outcomes() == {"offset_conflict": 1}
    play(lambda: client.patch(1000), client.head, client.get)
    scraped = watched.scrape()
    assert scraped.outcomes() == {"offset_conflict": 1, "ok": 1}
    assert scraped.value("uponce_upload_received_bytes_total") >= 2500
    at_address = "/tus/{cloud}/{signature}/{upload}"
    assert scraped.value("uponce_http_requests_total", route=at_address, method="PATCH", status="204") == 2
    assert scraped.value("uponce_http_requests_total", route=at_address, method="HEAD", status="200") == 3


def test_a_commit_whose_answer_was_lost_counts_when_it_is_read_back(watched: Watched) -> None:
    lost = OutcomeUnknown("lost")
    watched.swap(database=Failing(watched.database, after={"commit": lost}))
    assert_accepted(watched.upload(watched.sign()))
    watched.swap(database=Failing(watched.database, before={"commit": lost}))
    assert watched.upload(watched.sign()).code == "outcome_unknown"
    scraped = watched.scrape()
    assert scraped.outcomes() == {"ok": 1, "outcome_unknown": 1}
    assert scraped.value("uponce_upload_commit_duration_seconds_count") == 2


def test_what_went_wrong_here_is_told(watched: Watched) -> None:
    """The outcomes that raise an alarm are there from the start, at zero, so that the first one is a rise."""
    assert {"ok", "internal_error", "database_unavailable", "signature_used"} <= {
        sample.labels["outcome"] for sample in watched.scrape().samples if sample.name == "uponce_uploads_total"
    }
    gone = DatabaseUnavailable("gone", retry_after=1)
    watched.swap(database=Failing(watched.database, before={"commit": gone}))
    assert watched.upload(watched.sign()).status == 503
    watched.swap(database=Failing(watched.database, before={"commit": ZeroDivisionError()}))
    assert watched.upload(watched.sign()).status == 500
    scraped = watched.scrape()
    assert scraped.outcomes() == {"database_unavailable": 1, "internal_error": 1}
    for status in ("503", "500"):
        assert scraped.value("uponce_http_requests_total", route=UPLOAD, method="POST", status=status) == 1


def test_an_upload_under_way_is_told_meanwhile(watched: Watched) -> None:
    fields = watched.sign()

    async def look() -> Scraped:
        answer = await call(watched.app, "GET", "/metrics", headers=BEARER)
        return Scraped(answer.body.decode())

    async def upload() -> tuple[Scraped, Scraped, Answer]:
        seen: list[Scraped] = []

        async def body() -> AsyncIterator[bytes]:
            yield parts_of(fields)
            seen.append(await look())
            yield part("file", PNG, "cat.png")
            seen.append(await look())
            yield END

        answer = await call(watched.app, "POST", watched.route(), headers=FORM, chunks=body())
        return seen[0], seen[1], answer

    fewer, more, answer = asyncio.run(upload())
    assert_accepted(answer)
    assert fewer.value("uponce_uploads_in_progress") == more.value("uponce_uploads_in_progress") == 1
    parts = ("uponce_upload_received_bytes_total", "uponce_http_requests_total")
    assert fewer.value(parts[0]) == len(parts_of(fields))
    assert more.value(parts[0]) - fewer.value(parts[0]) == len(part("file", PNG, "cat.png"))
    after = watched.scrape()
    assert after.value("uponce_uploads_in_progress") == 0
    assert after.value(parts[1], route=UPLOAD) == 1


def test_requests_are_told_by_route_and_status(watched: Watched) -> None:
    url = str(assert_accepted(watched.upload(watched.sign())).json["url"]).removeprefix("https://media.example")
    assert_accepted(watched.get(url))
    assert watched.get(url, range="bytes=0-3").status == 206
    assert watched.get("/demo/image/upload/nothing.png").status == 404
    assert watched.get("/healthz").status == 200
    scraped = watched.scrape()
    originals = {"route": "/{cloud}/image/{rest}", "method": "GET"}
    assert [
        scraped.value("uponce_http_requests_total", status=status, **originals) for status in ("200", "206", "404")
    ] == [1, 1, 1]
    name = "uponce_http_request_duration_seconds"
    assert scraped.value(f"{name}_count", **originals) == scraped.value(f"{name}_bucket", le="+Inf", **originals) == 3
    assert scraped.value(f"{name}_sum", route=UPLOAD) > 0
    assert scraped.value("uponce_http_requests_total", route="/healthz", method="GET", status="200") == 1
    assert scraped.value("uponce_http_requests_total", route="/metrics") == 0  # it is not over yet
    assert watched.scrape().value("uponce_http_requests_total", route="/metrics", status="200") == 1


def test_no_client_can_make_up_a_label(watched: Watched) -> None:
    """Whatever is sent, there are no more series than routes and methods and statuses."""

    def nonsense(seed: str) -> set[str]:
        for method in ("GET", "POST", f"BREW{seed}", "", "get", f"X{seed}" * 50):
            for path in (f"/{seed}", f"/v1_1/{seed}/{seed}/upload", f"/v1_1/{seed}/image/destroy", f"/tus/{seed}/"):
                watched.request(method, path, headers={"x-unique-upload-id": seed, "authorization": f"Basic {seed}"})
            watched.request(method, f"/tus/{seed}/{seed}/{seed}")
            watched.request(method, f"/v1_1/{seed}/signatures/{seed}")
            watched.request(method, f"/{seed}/image/upload/{seed}.png")
            watched.request(method, f"/metrics/{seed}")
        for cloud in ("demo", seed):
            fields = {**watched.sign({"public_id": seed, "nonce": seed}), "api_key": seed}
            watched.request("PUT", f"/v1_1/{cloud}/raw/upload?" + "&".join(f"{n}={v}" for n, v in fields.items()))
        assert_accepted(watched.upload(watched.sign({"public_id": f"{seed}/cat"}), filename=f"{seed}.png"))
        scraped = watched.scrape()
        assert {sample.labels["method"] for sample in scraped.samples if "method" in sample.labels} <= {
            *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
        }
        text = watched.get("/metrics", **BEARER).body.decode()
        assert seed not in text
        assert not any(key.api_key in text for key in (watched.browser, watched.server))
        return {f"{sample.name}{sorted(sample.labels.items())}" for sample in scraped.samples}

    nonsense("zzzeroth")  # after which scrapes have been counted as well
    assert nonsense("zzfirst") == nonsense("zzsecond")


def test_sweeps_are_told(watched: Watched) -> None:
    watched.swap(database=Failing(watched.database, before={"commit": OutcomeUnknown("lost")}))
    watched.upload(watched.sign())
    watched.swap(database=watched.database)
    assert_accepted(watched.upload(watched.sign()))
    assert watched.scrape().value("uponce_sweep_last_success_timestamp_seconds") == 0
    watched.clock.time += 100_000
    asyncio.run(sweep(watched.services, grace_seconds=0, audit_seconds=10**9))
    scraped = watched.scrape()
    told = [scraped.value(f"uponce_swept_{what}_total") for what in ("blobs", "bytes", "grants")]
    assert told == [1, len(PNG), 1]
    assert scraped.value("uponce_purge_last_success_timestamp_seconds") == watched.clock.time
    assert scraped.value("uponce_sweep_last_success_timestamp_seconds") == watched.clock.time


def test_a_sweep_that_failed_is_no_success(watched: Watched) -> None:
    watched.swap(database=Failing(watched.database, before={"unnamed": DatabaseUnavailable("gone")}))
    watched.upload(watched.sign())
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(sweep(watched.services, grace_seconds=0, audit_seconds=10**9))
    assert watched.scrape().value("uponce_sweep_last_success_timestamp_seconds") == 0


def test_a_purge_of_which_a_step_failed_is_no_success(watched: Watched) -> None:
    watched.swap(database=Failing(watched.database, before={"end_old_series": DatabaseUnavailable("gone")}))
    watched.upload(watched.sign())
    watched.clock.time += 100_000
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(purge(watched.services, grace_seconds=0, audit_seconds=10**9))
    assert watched.scrape().value("uponce_swept_grants_total") == 1
    assert watched.scrape().value("uponce_purge_last_success_timestamp_seconds") == 0


def test_numbers_that_cannot_be_read_are_no_fault_of_the_client(watched: Watched) -> None:
    def text() -> bytes:
        raise StorageUnavailable("The metrics cannot be read.")

    watched.use(watched.services, Scrape(TOKEN, text))
    assert_refused(watched.get("/metrics", **BEARER), 503, "storage_unavailable")


def test_a_token_that_no_header_can_carry_is_refused() -> None:
    """By its name, and without showing it."""
    assert load({"UPONCE_METRICS_TOKEN": "!~"}).metrics_token == "!~"
    assert load({}).metrics_token == load({"UPONCE_METRICS_TOKEN": ""}).metrics_token == ""
    for token in ("two words", "ünique", "line\n", "\x7f"):
        with pytest.raises(SettingRefused, match="UPONCE_METRICS_TOKEN") as refusal:
            load({"UPONCE_METRICS_TOKEN": token})
        assert token not in refusal.value.message
