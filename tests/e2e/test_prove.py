"""`uponce prove`: it believes good servers, catches bad ones, and leaves as little behind as it can."""

import asyncio
import datetime
import ipaddress
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proof.faults.audit import count
from proof.faults.media import Folder
from tests.e2e.commands import Done, beside, printed, uponce
from tests.e2e.foreign import CLOUD, KEY, SECRET, Foreign, running
from tests.server import Server
from uponce.cli.credentials import credentials_of
from uponce.core.signature import verify
from uponce.core.values import Algorithm, ApiKey, KeyScope, KeyUses
from uponce.prove.checks import CheckResult, Plan, Verdict, checks, judge_race, worst
from uponce.prove.exchange import NO_REPLY, Reply
from uponce.prove.site import Site, dot

MUTANTS = Path(__file__).parents[2] / "proof/faults/mutants"
SMALL = ("--signatures", "4", "--at-once", "6")
MOST_UPLOADS = sum(check.requests for check in checks(Plan(4, 6)))
MOST_REQUESTS = MOST_UPLOADS + sum(check.files for check in checks(Plan(4, 6)))


def prove(url: str, *words: str, env: dict[str, str] | None = None) -> tuple[Done, dict[str, Any]]:
    """Its end and its report."""
    done = uponce("prove", "--json", *SMALL, *words, env={"CLOUDINARY_URL": url} | (env or {}))
    return done, json.loads(done.stdout)


def prove_foreign(foreign: Foreign, *words: str, env: dict[str, str] | None = None) -> tuple[Done, dict[str, Any]]:
    return prove(f"cloudinary://{KEY}:{SECRET}@{CLOUD}?upload_prefix={foreign.url}", *words, env=env)


def broken(report: dict[str, Any]) -> set[str]:
    """Headings under which something was found to be broken."""
    return {check["chapter"] for check in report["checks"] if check["verdict"] == "broken"}


@pytest.mark.proof
def test_it_holds_here(tmp_path: Path) -> None:
    """Two processes; the report says what it sent, and that this key may remove nothing."""
    with Server(tmp_path / "data", workers=2) as server:
        done, report = prove(server.urls[0])
        assert done.code == 0, f"{done.stderr}\nThe server:\n{server.output}"
    assert report["verdict"] == "holds"
    assert {check["verdict"] for check in report["checks"]} == {"holds"}
    race = report["checks"][-1]
    assert race["seen"] == "4 stored, 20 refused"
    assert 60 < report["requests"] <= MOST_REQUESTS
    assert report["clean_up"]["removed"] == 0
    assert set(report["clean_up"]["left"]) > {f"{report['folder']}/1"}
    assert "upload scope: its signatures upload, and never delete" in report["clean_up"]["why"]
    assert "files remain under" in done.stderr


@pytest.mark.proof
def test_with_a_key_that_may_delete_nothing_remains(tmp_path: Path) -> None:
    """Its signatures work once, for uploads and for deletions."""
    with Server(tmp_path / "data") as server:
        words = ("--cloud", server.cloud, "--uses", "once", "--scope", "all")
        (url,) = re.findall(r"cloudinary://\S+", printed(beside(server, "keys", "create", *words)))
        done, report = prove(url)
        assert done.code == 0, done.stderr
        assert (report["verdict"], report["clean_up"]["left"]) == ("holds", [])
        assert report["clean_up"]["removed"] > 20
        assert count(server.data_dir, "assets") == 0
        assert not Folder(server.data_dir / "media").keys()


@pytest.mark.proof
def test_look_then_insert_is_found_out(tmp_path: Path) -> None:
    """By simultaneous uploads, and by nothing that comes one after another."""
    program = (str(MUTANTS / "select_then_insert.py"),)
    race = "Of many uploads at the same moment one wins"
    with Server(tmp_path / "data", program=program) as server:
        done, report = prove(server.urls[0], "--signatures", "20")  # some of the races may have no double
    assert done.code == 1
    assert report["verdict"] == "broken"
    assert race in broken(report)
    # One that hung up may still be on its way when the next one comes.
    assert broken(report) <= {race, "A lost answer makes no second asset"}
    assert "BROKEN" in done.stderr


@pytest.mark.proof
def test_a_key_without_limit_is_no_proof(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        done, report = prove(server.urls[1])
        assert count(server.data_dir, "assets") == 0, "what it has stored it has removed"
    assert done.code == 1
    assert broken(report) == {
        "... once",
        "A lost answer makes no second asset",
        "Of many uploads at the same moment one wins",
    }


@pytest.mark.proof
@pytest.mark.parametrize("chunked", [False, True])
def test_a_good_server_that_is_not_ours(chunked: bool) -> None:
    """All that was stored is removed."""
    with running(Foreign(chunked=chunked)) as foreign:
        done, report = prove_foreign(foreign)
    assert done.code == 0, done.stderr
    assert report["clean_up"]["removed"] == len(set(foreign.destroyed)) > 20
    assert report["clean_up"]["left"] == []
    assert foreign.assets == {}
    assert foreign.requests <= MOST_UPLOADS + len(foreign.destroyed)


@pytest.mark.proof
def test_over_tls(tmp_path: Path) -> None:
    """Only with a certificate that is trusted."""
    certificate = tmp_path / "certificate.pem"
    with running(Foreign(), _tls(certificate)) as foreign:
        done, report = prove_foreign(foreign, env={"SSL_CERT_FILE": str(certificate)})
        assert done.code == 0, done.stderr
        assert report["clean_up"]["removed"] > 20
        stranger = uponce("prove", "--url", foreign.url, "--key", f"{KEY}:{SECRET}@{CLOUD}")
    assert stranger.code == 1
    assert "certificate" in stranger.stderr


@pytest.mark.proof
def test_a_server_that_claims_first_burns_what_fails() -> None:
    with running(Foreign(claims_first=True)) as foreign:
        done, report = prove_foreign(foreign)
    assert done.code == 1
    assert broken(report) == {"What fails costs nothing", "A torn upload costs nothing"}
    assert "Claimed before" in done.stderr


@pytest.mark.proof
def test_a_server_whose_signatures_last_an_hour() -> None:
    """What single-use signatures are against."""
    with running(Foreign(once=False)) as foreign:
        done, report = prove_foreign(foreign)
    assert done.code == 1
    assert "... once" in broken(report)
    assert report["checks"][-1]["seen"] == "4 of 4 stored several"
    assert foreign.assets == {}


@pytest.mark.proof
def test_a_rate_limit_proves_nothing() -> None:
    """Neither that it holds, nor that it is broken."""
    with running(Foreign(rate_limit=60)) as foreign:
        done, report = prove_foreign(foreign)
    assert done.code == 1
    assert report["verdict"] == "unclear"
    assert "Not proved" in done.stderr
    assert report["clean_up"]["why"] == "Rate limit exceeded"


@pytest.mark.proof
def test_names_that_are_not_ours_are_never_removed() -> None:
    """Whatever a server answers."""
    with running(Foreign(renames=True)) as foreign:
        _, report = prove_foreign(foreign)
    assert report["clean_up"]["left"]
    assert all(name.startswith(report["folder"]) for name in foreign.destroyed)


@pytest.mark.proof
def test_when_time_is_up_nothing_new_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Foreign()) as foreign:
        clock = SimpleNamespace(monotonic=lambda: 0 if foreign.requests < MOST_UPLOADS // 3 else 1000)
        monkeypatch.setattr("uponce.prove.site.time", clock)
        done, report = prove_foreign(foreign, "--seconds", "999")
    assert done.code == 1
    assert report["checks"][-1]["seen"] == "not tried: time was up"
    assert foreign.requests < 2 * MOST_UPLOADS // 3
    assert foreign.assets == {}


@pytest.mark.proof
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_proof_cleans_up(number: signal.Signals) -> None:
    with running(Foreign()) as foreign:
        url = f"cloudinary://{KEY}:{SECRET}@{CLOUD}?upload_prefix={foreign.url}"
        with subprocess.Popen(
            [sys.executable, "-m", "uponce", "prove", "--url", url, "--signatures", "1000"],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            deadline = time.monotonic() + 120
            while foreign.requests < MOST_REQUESTS and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(number)
            process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(foreign.destroyed) > 20
    assert foreign.assets == {}


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:  # bound and not listening: no server answers, and no other process can
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        done = uponce("prove", "--url", f"http://127.0.0.1:{port}", "--key", "k:s@c")
    assert done.code == 1
    assert f"http://127.0.0.1:{port} did not take a first upload: no reply" in done.stderr
    assert "Check the address" in done.stderr


def test_a_wrong_secret_stops_at_the_first_upload() -> None:
    with running(Foreign()) as foreign:
        done = uponce("prove", "--url", foreign.url, "--key", f"{KEY}:wrong@{CLOUD}")
    assert done.code == 1
    assert "Invalid Signature" in done.stderr
    assert foreign.requests == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--url", "https://media.example"), 2, "KEY:SECRET@CLOUD"),
        (("--url", "cloudinary://k:s@c"), 1, "upload_prefix"),
        (("--url", "cloudinary://k:s@c?upload_prefix=ftp://x"), 1, "upload_prefix=http://HOST:PORT"),
        (("--at-once", "1"), 2, "--at-once"),
        (("--url", "media.example", "--key", "k:s@c"), 1, "--url media.example is not an address."),
        (("--url", "ftp://media.example", "--key", "k:s@c"), 1, "--url ftp://media.example is not an address."),
        (("--url", "http://", "--key", "k:s@c"), 1, "--url http:// is not an address."),
        (("--url", "https://:443", "--key", "k:s@c"), 1, "--url https://:443 is not an address."),
        (("--url", "http://[::1", "--key", "k:s@c"), 1, "--url http://[::1 is not an address."),
        (("--url", "http://127.0.0.1:99999", "--key", "k:s@c"), 1, "--url http://127.0.0.1:99999 is not an address."),
        (("--url", "http://127.0.0.1:0", "--key", "k:s@c"), 1, "in --url or in CLOUDINARY_URL"),
        (("--url", f"http://{'a' * 64}.example", "--key", "k:s@c"), 1, "in --url or in CLOUDINARY_URL"),
        (("--url", "http://media.example?a=1", "--key", "k:s@c"), 1, "in --url or in CLOUDINARY_URL"),
        (("--url", "cloudinary://k:s@c?upload_prefix=http://a:99999"), 1, "in --url or in CLOUDINARY_URL"),
        (("--url", "http://media.invalid", "--key", "k:s@c"), 1, "Check the address, the cloud and the key in --url"),
    ],
)
def test_what_it_needs_to_know(words: tuple[str, ...], code: int, told: str) -> None:
    done = uponce("prove", *words)
    assert done.code == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_before_it_starts_it_says_what_it_will_send() -> None:
    with running(Foreign()) as foreign:
        url = f"cloudinary://{KEY}:{SECRET}@{CLOUD}?upload_prefix={foreign.url}"
        done = uponce("prove", "--url", url, *SMALL)
    assert len(foreign.destroyed) > 20
    assert foreign.requests <= MOST_REQUESTS
    first = done.stdout.split("A signature works")[0].replace("\n", " ")
    assert f"To {foreign.url}, cloud {CLOUD}, this command sends at most {MOST_REQUESTS} requests: " in first
    assert f"at most {MOST_UPLOADS} uploads" in first
    assert done.stdout.rstrip().endswith("requests.")
    assert "It holds: signatures work once here." in done.stdout


REFUSED = Reply(400, {"error": {"message": "Used before"}})
STORED = Reply(200, {"public_id": "x"})
LOST = Reply(NO_REPLY, problem="gone")


@pytest.mark.parametrize(
    ("contest", "verdict"),
    [
        ([STORED, REFUSED, REFUSED], Verdict.HOLDS),
        ([STORED, STORED, REFUSED], Verdict.BROKEN),
        ([STORED, STORED, LOST], Verdict.BROKEN),
        ([REFUSED, REFUSED, REFUSED], Verdict.BROKEN),
        ([Reply(200, {"overwritten": True}), REFUSED, LOST], Verdict.BROKEN),
        ([STORED, REFUSED, LOST], Verdict.UNCLEAR),
        ([STORED, REFUSED, Reply(503, REFUSED.body)], Verdict.UNCLEAR),
        ([STORED, REFUSED, Reply(429, REFUSED.body)], Verdict.UNCLEAR),
        ([STORED, REFUSED, Reply(400)], Verdict.UNCLEAR),
        ([REFUSED, REFUSED, LOST], Verdict.UNCLEAR),
    ],
)
def test_the_verdict_of_a_race(contest: list[Reply], verdict: Verdict) -> None:
    """One good race beside it changes nothing."""
    assert judge_race([[STORED, REFUSED, REFUSED], contest], 2).verdict is verdict


def test_a_reply_is_shown_without_commands_to_the_terminal() -> None:
    reply = Reply(400, {"error": {"message": "no\x1b]0;owned\x07", "code": "\x1b[2J\ud800"}})
    assert (reply.message, str(reply)) == ("no?]0;owned?", "400 ?[2J?")


def test_the_worst_verdict_counts() -> None:
    outcomes = [CheckResult(verdict, "") for verdict in Verdict]
    assert [worst(o.verdict for o in outcomes[:number]) for number in (1, 2, 3)] == list(Verdict)


@pytest.mark.parametrize(
    ("base", "host"),
    [
        ("http://b\xfccher.example:8000", b"xn--bcher-kva.example:8000"),
        ("https://Media.example", b"media.example"),
        ("http://user@[2001:DB8::5]:81/", b"[2001:db8::5]:81"),
    ],
)
def test_a_request_names_its_host_in_ascii(base: str, host: bytes) -> None:
    site = Site(base, ApiKey("1", "media", ("s",), KeyUses.ONCE, KeyScope.UPLOAD, 3600), 60)
    assert b"\r\nHost: " + host + b"\r\n" in site.request("image/upload", b"", "text/plain")


@pytest.mark.parametrize(("option", "length"), [("", 40), ("&signature_algorithm=sha256", 64)])
def test_it_signs_with_the_algorithm_of_the_key(option: str, length: int) -> None:
    """SHA-1 unless the key refuses it: other servers may know no SHA-256."""
    target = credentials_of(f"cloudinary://k:s@c?upload_prefix=http://media.example{option}")
    fields = Site(target.base, target.key, 60).new_signature()
    assert len(fields["signature"]) == length
    assert verify(fields, target.key)[1].algorithm is (Algorithm.SHA256 if option else Algorithm.SHA1)


@pytest.mark.parametrize("at", ["the connection", "the reply"])
def test_a_machine_that_stands_still_is_no_silence(at: str) -> None:
    """Its clock goes on for longer than it waits for any answer."""

    async def race() -> list[Reply]:
        loop, stood_still = asyncio.get_running_loop(), 0.0

        def stand_still() -> None:
            nonlocal stood_still
            stood_still += 100

        def answer() -> None:
            stand_still()
            foreign.lock.release()

        loop.time = lambda: time.monotonic() + stood_still  # type: ignore[method-assign]
        target = credentials_of(f"cloudinary://{KEY}:{SECRET}@{CLOUD}?upload_prefix={foreign.url}")
        site = Site(target.base, target.key, 120)
        if at == "the connection":
            site.on_request = lambda: loop.call_soon(stand_still)
        else:
            foreign.lock.acquire()
            loop.call_later(0.5, answer)
        return await site.race(site.new_signature(), [dot(1), dot(2)])

    with running(Foreign()) as foreign:
        replies = asyncio.run(race())
    assert sorted(reply.status for reply in replies) == [200, 400]


def test_each_dot_has_bytes_of_its_own() -> None:
    assert len({dot(number) for number in range(1000)}) == 1000


def _tls(certificate: Path) -> ssl.SSLContext:
    """A server's context for 127.0.0.1; the certificate that clients have to trust goes to the file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = certificate.with_suffix(".key")
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return context
