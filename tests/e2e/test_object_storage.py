"""Two real servers on one PostgreSQL and one S3 bucket: nothing is on their own disks but what is arriving."""

import json
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import obstore
import pytest
import urllib3

from tests import postgres, samples
from tests.chunks import noise
from tests.e2e.commands import Done, in_a_process, uponce
from tests.server import Server, asked
from tests.stores import seaweedfs
from tests.stores.seaweedfs import BUCKET, SeaweedFS

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("object-storage")]

MEBIBYTE = 1024 * 1024
CHUNK = 5 * MEBIBYTE
FILM = noise(2 * CHUNK + 7)


class Site:
    """`servers` are two on PostgreSQL, or one on SQLite."""

    def __init__(self, store: SeaweedFS, url: str, settings: dict[str, str]) -> None:
        self.store = store
        self.url = url
        self.settings = settings
        self.servers: list[Server] = []

    def objects(self) -> dict[str, int]:
        """What is in the bucket: sizes by name."""
        place = self.store.store(self.url.removeprefix(f"s3://{BUCKET}/"))
        return {meta["path"]: meta["size"] for batch in obstore.list(place) for meta in batch}

    def files(self) -> list[Path]:
        """Media on the disks of the servers."""
        return [path for server in self.servers for path in (server.data_dir / "spool").iterdir()]

    def command(self, *words: str) -> Done:
        return uponce(*words, env=self.settings | {"UPONCE_DATA": str(self.servers[0].data_dir)})


@contextmanager
def site(
    folder: Path, database: str | None, servers: int, store: SeaweedFS | None = None, **more: str
) -> Iterator[Site]:
    """In the store of all tests, unless it is given one."""
    store = store or seaweedfs.shared()
    url = store.fresh_url()
    settings = {
        **store.environment,
        "UPONCE_STORAGE": url,
        "UPONCE_STORAGE_SECONDS": "60",
        "UPONCE_SECRET_KEY": secrets.token_hex(32),
        "UPONCE_DECODERS": "1",
        **more,
    }
    if database is not None:
        settings["UPONCE_DATABASE"] = database
    with ExitStack() as stack:
        found = Site(store, url, settings)
        for number in range(servers):
            found.servers.append(stack.enter_context(Server(folder / f"server-{number}", env=settings)))
        first = found.servers[0]
        for other in found.servers[1:]:
            other.cloud, other.browser, other.server = first.cloud, first.browser, first.server
        yield found


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    if request.param == "sqlite":
        with site(folder, None, 1) as found:
            yield found
    else:
        with site(folder, postgres.shared().fresh_schema(), 2) as found:
            yield found


def path_of(answer: urllib3.BaseHTTPResponse) -> str:
    assert answer.status == 200, answer.data
    return "/" + str(answer.json()["url"]).partition("://")[2].partition("/")[2]


def patiently(request: Callable[[], urllib3.BaseHTTPResponse]) -> urllib3.BaseHTTPResponse:
    """Again after each 503: a store that has just started takes no object for a moment, and a machine may stall."""
    until = time.monotonic() + 60
    while (answer := request()).status == 503 and time.monotonic() < until:
        time.sleep(0.2)
    return answer


def chunk(server: Server, fields: dict[str, str], first: int, upload_id: str) -> urllib3.BaseHTTPResponse:
    data = FILM[first : first + CHUNK]
    headers = {
        "X-Unique-Upload-Id": upload_id,
        "Content-Range": f"bytes {first}-{first + len(data) - 1}/{len(FILM)}",
    }
    return server.post(fields, data, resource_type="raw", headers=headers)


def test_an_upload_here_is_delivered_there(running: Site) -> None:
    first, last = running.servers[0], running.servers[-1]
    picture = samples.png(3, 64, 64)
    fields = first.signed({"public_id": "cat"})
    answer = first.post(fields, picture, filename="cat.png")
    path = path_of(answer)
    assert last.post(fields, picture).json()["error"]["code"] == "signature_used"
    whole = last.get(path)
    assert (whole.status, whole.data, whole.headers["content-type"]) == (200, picture, "image/png")
    part = last.get(path, headers={"Range": "bytes=-10"})
    assert (part.status, part.data) == (206, picture[-10:])
    several = last.get(path, headers={"Range": "bytes=0-3,8-11"})
    assert several.status == 206 and picture[8:12] in several.data
    head = last.get(path, method="HEAD")
    assert (head.status, head.headers["content-length"], head.data) == (200, str(len(picture)), b"")
    assert last.get(path, headers={"If-None-Match": whole.headers["etag"]}).status == 304
    assert running.files() == []


def test_a_large_file_in_one_piece_and_in_chunks(running: Site) -> None:
    first, last = running.servers[0], running.servers[-1]
    whole = first.post(first.signed({"nonce": "whole"}), FILM, resource_type="raw")
    assert last.get(path_of(whole)).data == FILM
    fields = first.signed({"nonce": "chunks"})
    for start in range(0, len(FILM), CHUNK):
        answer = chunk(first, fields, start, "film")
    assert last.get(path_of(answer), headers={"Range": "bytes=5242870-5242890"}).data == FILM[5242870:5242891]
    assert last.get(path_of(answer)).data == FILM
    assert running.files() == []


def test_sweep_and_fsck_see_the_bucket(running: Site) -> None:
    place = running.store.store(running.url.removeprefix(f"s3://{BUCKET}/"))
    orphan = "ab" * 16
    obstore.put(place, f"blobs/ab/{orphan}", b"orphan")
    (running.servers[0].data_dir / "spool" / ("cd" * 16)).write_bytes(b"left behind")
    checked = running.command("fsck", "--deep", "--grace", "0", "--json")
    kinds = {finding["kind"]: finding["subject"] for finding in json.loads(checked.stdout)["findings"]}
    assert kinds == {"orphan": orphan, "spooled": "cd" * 16}
    swept = json.loads(running.command("sweep", "--grace", "0", "--json").stdout)
    assert (swept["blobs"], swept["unfinished"], swept["bytes"]) == (1, 1, 6)
    sound = running.command("fsck", "--deep", "--json")
    assert sound.code == 0, sound.stdout
    before = running.objects().keys()
    server = running.servers[0]
    path_of(server.post(server.signed({"nonce": "doomed"}), b"doomed", resource_type="raw"))
    obstore.delete(place, [*running.objects().keys() - before])
    broken = running.command("fsck", "--json")
    assert broken.code == 1
    assert [finding["kind"] for finding in json.loads(broken.stdout)["findings"]] == ["hollow"]


def test_the_doctor_looks_at_the_bucket(running: Site) -> None:
    told = running.command("doctor")
    assert told.code == 0, told.stdout
    wrong = uponce(
        "doctor",
        env=running.settings | {"UPONCE_DATA": str(running.servers[0].data_dir), "AWS_SECRET_ACCESS_KEY": "wrong"},
    )
    assert wrong.code == 1 and "Check the credentials" in wrong.stdout


def test_a_server_outlives_its_store(tmp_path: Path) -> None:
    """503 and nothing spent while it is gone; afterwards it goes on without a restart."""
    with ExitStack() as stack:
        store = SeaweedFS()
        stack.callback(store.stop)
        store.run()
        found = stack.enter_context(site(tmp_path, None, 1, store, UPONCE_STORAGE_SECONDS="10"))
        (server,) = found.servers
        first = server.signed({"nonce": 1})
        path = path_of(patiently(lambda: server.post(first, b"before", resource_type="raw")))
        found.store.kill()
        fields = server.signed({"nonce": 2})
        refused = server.post(fields, b"meanwhile", resource_type="raw")
        assert (refused.status, refused.json()["error"]["code"]) == (503, "storage_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert server.get(path).status == 503
        ready = server.get("/readyz")
        assert ready.status == 503 and ready.json()["checks"]["storage"] != "ok"
        assert server.get("/healthz").status == 200
        found.store.run()
        again = patiently(lambda: server.post(fields, b"meanwhile", resource_type="raw"))
        assert patiently(lambda: server.get(path_of(again))).data == b"meanwhile"
        assert patiently(lambda: server.get(path)).data == b"before"
        assert patiently(lambda: server.get("/readyz")).status == 200


def test_delivery_by_redirect(tmp_path: Path) -> None:
    with site(tmp_path, None, 1, UPONCE_STORAGE_REDIRECT="60") as found:
        (server,) = found.servers
        picture = samples.png(4, 32, 32)
        path = path_of(server.post(server.signed({"nonce": 1}), picture))
        sent = asked("GET", server.base + path, redirect=False)
        assert (sent.status, sent.headers["cache-control"]) == (302, "public, no-transform, max-age=30")
        assert sent.headers["location"].startswith(found.store.endpoint)
        followed = asked("GET", server.base + path, headers={"Range": "bytes=1-3"}, retries=1)
        assert (followed.status, followed.data, followed.headers["content-type"]) == (206, b"PNG", "image/png")
        head = asked("HEAD", server.base + path, redirect=False)
        assert (head.status, head.headers["content-length"]) == (200, str(len(picture)))
        assert "etag" not in head.headers  # the bucket has its own
        again = asked("GET", server.base + path, headers={"If-None-Match": followed.headers["etag"]}, retries=1)
        assert again.status == 304
        absent = asked("GET", server.base + "/media/image/upload/v1/none.png", redirect=False)
        assert absent.status == 404


def test_a_redirect_needs_an_object_store(tmp_path: Path) -> None:
    told = in_a_process("serve", "--data", tmp_path / "data", env={"UPONCE_STORAGE_REDIRECT": "60"})
    assert (told.code, "UPONCE_STORAGE_REDIRECT=60 needs an object store" in told.stderr) == (1, True)
