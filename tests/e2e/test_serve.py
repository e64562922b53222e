"""`uponce serve` as a process: how it ends, where it listens, how other commands find it, and the keys of settings."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import urllib3

from tests import samples
from tests.e2e.commands import code_of, in_a_process, printed, uponce
from tests.e2e.test_metrics import until as eventually
from tests.server import Key, Server, accepts

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("serve")]


# --- memory


def heaps_beside_the_first(pid: int) -> int:
    """Heaps that glibc made for threads: 64 MiB each, on a border of 64 MiB, of which the first part is in use."""
    size = 64 * 1024 * 1024
    places: list[tuple[int, int, str]] = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, mode = line.split()[:2]
        start, _, stop = span.partition("-")
        places.append((int(start, 16), int(stop, 16), mode))
    return sum(
        (mode, next_mode) == ("rw-p", "---p") and start % size == 0 and (stop, next_stop) == (next_start, start + size)
        for (start, stop, mode), (next_start, next_stop, next_mode) in pairwise(places)
    )


def test_a_server_has_one_heap(tmp_path: Path) -> None:
    """Heaps of threads that have ended stay, each with what was once needed there."""
    with Server(tmp_path / "data") as server:
        assert heaps_beside_the_first(server.pid) == 0


# --- exit codes


def until(server: Server, line: str, times: int = 1) -> None:
    """Return when the server, which serves all the time, has printed the line so often."""
    deadline = time.monotonic() + 60
    while server.output.count(line) < times:
        assert server.get("/healthz").status == 200
        assert time.monotonic() < deadline, server.output
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_clean_shutdown_exits_with_0(tmp_path: Path, workers: int, number: signal.Signals) -> None:
    with Server(tmp_path / "data", workers=workers) as server:
        os.kill(server.pid, number)
        assert server.wait() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_that_cannot_start_exits_with_1(tmp_path: Path, workers: str) -> None:
    """The decoders do not start: uvicorn has another exit code for that."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'serve' in sys.argv or 'multiprocessing.spawn' in sys.modules or '-c' in sys.argv:\n"
        "    from uponce.adapters.media.pool import DecoderPool\n"
        "    async def start(self): raise RuntimeError('no decoders here')\n"
        "    DecoderPool.start = start\n"
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    done = in_a_process("serve", "--data", tmp_path / "data", "--port", "0", "--workers", workers, env=environment)
    assert "no decoders here" in done.stderr
    assert done.code == 1


def test_a_worker_that_cannot_start_again_leaves_the_others_serving(tmp_path: Path) -> None:
    """The secret key is away for a while. The server tries until the worker starts."""
    with Server(tmp_path / "data", workers=2, env={"UPONCE_LOG_LEVEL": "info"}) as server:
        until(server, "all 2 workers serve")
        children = psutil.Process(server.pid).children()
        lost, *healthy = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        key, away = server.data_dir / "secret.key", tmp_path / "away"
        key.rename(away)
        lost.kill()
        lost.wait(60)
        until(server, "ended with exit code 3, and a new one starts")
        assert [worker.is_running() for worker in healthy] == [True]
        assert code_of(server, server.signed({"nonce": "one worker"})) == ""
        away.rename(key)
        until(server, "Application startup complete", times=3)
        assert server.stop() == 0


def test_workers_that_start_again_spend_where_the_server_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting in `.env` for the next start of the server must not count for some of its workers."""
    monkeypatch.chdir(tmp_path)
    with Server(tmp_path / "data", workers=2, env={"UPONCE_LOG_LEVEL": "info"}) as server:
        until(server, "all 2 workers serve")
        spent = server.signed({"nonce": "once"})
        assert code_of(server, spent) == ""
        Path(".env").write_text(f"UPONCE_DATABASE=sqlite:///{tmp_path}/new.db\n")
        os.kill(server.pid, signal.SIGHUP)
        until(server, "Finished server process", times=2)
        assert code_of(server, spent) == "signature_used"


def test_workers_that_need_long_to_start_are_not_given_up(tmp_path: Path) -> None:
    """On a busy machine a worker needs longer than the 5 seconds that uvicorn gives it."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import multiprocessing, time\n"
        "if multiprocessing.parent_process():\n"
        "    time.sleep(6)\n"
        "from uponce.cli import main\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    with Server(tmp_path / "data", workers=2, env={"UPONCE_LOG_LEVEL": "info"}, program=(str(slow),)) as server:
        until(server, "all 2 workers serve")
        os.kill(server.pid, signal.SIGHUP)
        until(server, "Finished server process")
        assert server.output.partition("Finished server process")[0].count("Started server process") == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_that_stops_refuses_connections_while_an_upload_ends(tmp_path: Path, workers: int) -> None:
    """A balancer then connects elsewhere. A connection that no server accepts would hang, and fail later."""
    with Server(tmp_path / "data", workers=workers) as server:
        body, kind = urllib3.encode_multipart_formdata(server.signed() | {"file": ("a.bin", b"bytes")})
        path = urlsplit(server.upload_url("raw")).path
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(f"{head}expect: 100-continue\r\n\r\n".encode())
            assert client.recv(65536).startswith(b"HTTP/1.1 100 ")  # the upload is under way
            client.sendall(body[:-1])
            os.kill(server.pid, signal.SIGTERM)
            eventually(lambda: not accepts(server.port))
            client.sendall(body[-1:])
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert server.wait() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_decoder_has_none_of_the_files_of_its_worker(tmp_path: Path) -> None:
    """Neither the listening socket nor the pipe whose messages the supervisor unpickles."""
    with Server(tmp_path / "data", workers=2, env={"UPONCE_LOG_LEVEL": "info"}) as server:
        until(server, "all 2 workers serve")
        family = psutil.Process(server.pid).children(recursive=True)
        decoders = [each for each in family if "uponce.adapters.media.worker" in each.cmdline()]
        # /dev/null, jobs and answers. While a decoder starts, it also reads its modules.
        eventually(lambda: [each.num_fds() for each in decoders] == [3 + 2] * 2)


# --- addresses


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("nohost.invalid", "UPONCE_HOST=nohost.invalid is not an address of this machine: "),
        ("203.0.113.9", "UPONCE_HOST=203.0.113.9 is not an address of this machine."),
    ],
)
def test_a_wrong_host_is_named_and_not_the_port(tmp_path: Path, host: str, reason: str) -> None:
    done = uponce("serve", "--data", tmp_path / "data", "--port", "0", "--host", host)
    assert done.code == 1
    assert reason in done.stderr
    assert "UPONCE_PORT" not in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "0"])
def test_every_address_is_printed_for_this_machine_and_for_others(tmp_path: Path, host: str) -> None:
    with Server(tmp_path / "data", env={"UPONCE_HOST": host}) as server:
        others = re.search(r"^every address .* use http://(\S+):(\d+)$", server.output, re.MULTILINE)
        assert others is not None
        assert others[1] not in ("0.0.0.0", "127.0.0.1")
        assert int(others[2]) == server.port
        assert f"listening on http://127.0.0.1:{server.port}\n" in server.output


def test_the_public_url_is_for_clients_and_the_local_one_for_scripts(tmp_path: Path) -> None:
    with Server(tmp_path / "data", env={"UPONCE_PUBLIC_URL": "https://media.example/"}) as server:
        assert f"listening on http://127.0.0.1:{server.port}\n" in server.output
        assert server.urls[0].endswith("upload_prefix=https://media.example")
        signed = printed(uponce("sign", "--data", server.data_dir))
        assert signed.startswith("https://media.example/v1_1/")


# --- how other commands find the server


def test_commands_find_the_running_server(tmp_path: Path) -> None:
    """Its port is known to nothing but the data folder; after its end, and after its death, stderr says so."""
    picture = tmp_path / "dot.png"
    picture.write_bytes(samples.png(1))
    data = ("--data", tmp_path / "data")
    with Server(tmp_path / "data") as server:
        signed = uponce("sign", *data)
        assert (signed.stderr, signed.stdout.splitlines()[0]) == ("", server.upload_url())
        assert printed(uponce("upload", picture, *data)).startswith(server.base)
        assert printed(uponce("keys", "create", *data)).endswith(f"?upload_prefix={server.base}\n")
        there = printed(uponce("sign", *data, "--url", "https://media.example/"))
        assert there.splitlines()[0] == f"https://media.example/v1_1/{server.cloud}/auto/upload"
        server.kill()
        assert f"No server answers at {server.base}, where the last one listened." in uponce("sign", *data).stderr
        server.start()
        assert server.stop() == 0
    stopped = uponce("sign", *data)
    assert stopped.code == 0
    assert f"No server runs on {tmp_path / 'data'}." in stopped.stderr


def test_an_address_that_is_none(tmp_path: Path) -> None:
    printed(uponce("keys", "create", "--data", tmp_path))
    done = uponce("sign", "--data", tmp_path, "--url", "media.example")
    assert (done.code, done.stdout) == (1, "")
    assert "--url media.example is not an address." in done.stderr


@pytest.mark.usefixtures("tries_at_once")
def test_an_upload_that_fails_prints_no_live_signature(tmp_path: Path) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(samples.png(1))
    printed(uponce("keys", "create", "--data", tmp_path / "data"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = uponce("upload", picture, "--data", tmp_path / "data", "--url", url, "--json")
    assert done.code == 1
    assert url in done.stdout
    assert not re.search(r"signature|[0-9a-f]{40}|nonce", done.stdout + done.stderr)


# --- the log


@pytest.mark.parametrize(("format_", "workers"), [("text", 1), ("json", 2)])
def test_every_line_of_the_log_has_one_format(tmp_path: Path, format_: str, workers: int) -> None:
    """Also uvicorn's lines, and those of the supervisor of workers. A request is one line."""
    settings = {"UPONCE_LOG_LEVEL": "info", "UPONCE_LOG_FORMAT": format_, "UPONCE_INSTANCE": "box"}
    with Server(tmp_path / "data", workers=workers, env=settings) as server:
        begun = len(server.output)
        fields = server.signed({"public_id": "tom"})
        answers = [server.post(fields, b"bytes", resource_type="raw") for _ in range(2)]
        with socket.create_connection(("127.0.0.1", server.port)) as stranger:
            stranger.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            stranger.recv(1000)
        upgrade = {"connection": "upgrade", "upgrade": "websocket"}
        assert server.get("/healthz", headers=upgrade).status < 500
        assert server.stop() == 0
    lines = (tmp_path / "data.log").read_text()[begun:].splitlines()
    told = [line for line in lines if line]
    pattern = r"[-\dT:.]+Z (INFO|WARNING|ERROR) box/\d+ (-|\w{32}) \S.*"
    if format_ == "json":
        read = [json.loads(line) for line in told]
        assert all(each.keys() >= {"time", "level", "instance", "request", "message"} for each in read)
        requests = [(each["request"], each["message"]) for each in read if each["request"] != "-"]
    else:
        matches = [re.fullmatch(pattern, line) for line in told]
        assert all(matches), told
        requests = [(line.split()[3], line.split()[4]) for line in told if line.split()[3] != "-"]
    assert any("Finished server process" in line for line in told)
    ids = [answer.headers["x-request-id"] for answer in answers]
    if workers > 1:
        requests.sort(key=lambda each: ids.index(each[0]))  # each worker writes for itself
    assert requests == [(ids[0], "stored"), (ids[1], "refused")]


# --- keys of the settings

PAIR = Key("123456789012345", "AbCdEfGhIjKlMnOpQrStUvWxYz1")
OTHER = Key("backend", "0123456789abcdefghij_-0123")


def preset(key: Key, options: str = "", cloud: str = "cats") -> str:
    return f"cloudinary://{key.key}:{key.secret}@{cloud}{options}"


def test_keys_of_the_settings_work_and_are_printed_nowhere(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(preset(OTHER, "?uses=unlimited&scope=all") + "\n")
    environment = {"UPONCE_KEYS": preset(PAIR), "UPONCE_KEYS_FILE": str(tmp_path / "keys")}
    with Server(tmp_path / "data", env={**environment, "UPONCE_LOG_LEVEL": "debug"}) as server:
        server.cloud, server.browser = "cats", PAIR
        once = server.signed()
        assert [code_of(server, once) for _ in range(2)] == ["", "signature_used"]
        often = server.signed(key=OTHER)
        assert [code_of(server, often) for _ in range(2)] == ["", ""]
        assert f"# key {PAIR.key} from the settings: each signature works once" in server.output
        assert PAIR.secret not in server.output and OTHER.secret not in server.output
        assert "CLOUDINARY_URL" not in server.output
        server.stop()
        server.start()
        assert "from the settings" not in server.output
        assert code_of(server, server.signed({"nonce": 2})) == ""


def test_a_key_that_exists_is_never_changed_by_the_settings(tmp_path: Path) -> None:
    data = tmp_path / "data"
    printed(uponce("keys", "import", "--data", data, stdin=preset(PAIR) + "\n"))
    changed = Key(PAIR.key, "another-secret-of-the-same-key")
    with Server(data, env={"UPONCE_KEYS": preset(changed)}) as server:
        server.cloud = "cats"
        assert f"API key {PAIR.key} differs between settings and database: secret." in server.output
        assert code_of(server, server.signed(key=PAIR)) == ""
        assert code_of(server, server.signed(key=changed)) == "invalid_signature"
        assert changed.secret not in server.output


def test_an_address_of_something_else_is_told_from_uponce(tmp_path: Path) -> None:
    picture = tmp_path / "dot.png"
    picture.write_bytes(samples.png(1))
    printed(uponce("keys", "create", "--data", tmp_path / "data"))
    with Other() as url:
        done = uponce("upload", picture, "--data", tmp_path / "data", "--url", url)
    assert (done.code, done.stdout) == (1, "")
    assert f"{url} answers HTTP 200, but not as uponce does. Check the address." in done.stderr


class Other:
    """A server that answers each request with a list in JSON."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"[]")

            def log_message(self, *_: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_limits_of_a_head_are_settings_and_the_refusals_name_their_values(tmp_path: Path, workers: int) -> None:
    """Worker processes too must have them."""
    with Server(tmp_path / "large", workers=workers, env={"UPONCE_MAX_HEAD_BYTES": "5000"}) as server:
        assert b" 431 " in (large := _said(server.port, b"GET / HTTP/1.1\r\nX: " + b"a" * 6000))
        assert b"larger than 5000 bytes" in large
    with Server(tmp_path / "slow", workers=workers, env={"UPONCE_HEAD_SECONDS": "1"}) as server:
        said = (_said(server.port, b"GET / HTTP/1.1\r\n") for _ in range(10))  # nothing, if held up before a byte
        assert b" 408 " in (slow := next(filter(None, said), b""))
        assert b"within 1 seconds" in slow


def _said(port: int, request: bytes) -> bytes:
    """Send these bytes, and return what comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(request)
        return b"".join(iter(partial(client.recv, 65536), b""))


# --- the playground


def test_the_playground_is_off_by_default(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        answer = server.get("/playground")
        assert (answer.status, answer.json()["error"]["code"]) == (404, "not_found")
        assert "playground" not in server.output


def test_the_playground_warns_and_says_where_it_is(tmp_path: Path) -> None:
    with Server(tmp_path / "data", env={"UPONCE_PLAYGROUND": "local"}) as server:
        assert re.search(r"Z WARNING \S+ - The playground is on: everyone on this machine can upload", server.output)
        assert f"\nplayground at {server.base}/playground\n" in server.output
        page = server.get("/playground")
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_behind_a_public_url_the_playground_must_be_public(tmp_path: Path) -> None:
    """Every client of a proxy on this machine would pass for this machine."""
    settings = {"UPONCE_PUBLIC_URL": "https://media.example"}
    done = in_a_process("serve", "--playground", "--data", tmp_path / "data", "--port", "0", env=settings)
    assert done.code == 1
    assert "--playground=local (command line) is not valid: it must be off or public" in done.stderr
