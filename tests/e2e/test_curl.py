"""curl: a form, the whole grant in one URL, and what `uponce sign` prints."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec
import pytest

from tests import samples
from tests.e2e.commands import beside, printed
from tests.e2e.conftest import DOCS
from tests.e2e.lossy import LossyProxy
from tests.server import Server

MIB = 1024 * 1024

# Every character that a shell, curl's -F or a query might take for its own.
CAPTION = 'context=caption=@it\'s <a> "$HOME" & `b`;type=c%d+e\\f'


class Answer(NamedTuple):
    status: int
    sent: int  # bytes of the body that curl sent
    head: str
    error: dict[str, str]
    secure_url: str


def read(printed: str) -> Answer:
    """What curl printed with `-i` and `-w`."""
    text, _, numbers = printed.rpartition("\n")
    head, _, body = text.replace("\r\n", "\n").rpartition("\n\n")
    answer = msgspec.json.decode(body)
    status, sent = map(int, numbers.split())
    return Answer(status, sent, head, answer.get("error", {}), answer.get("secure_url", ""))


REPORT = ("-sS", "-i", "-w", "\n%{http_code} %{size_upload}")


def run(curl: str, *words: str | Path, cwd: Path | None = None) -> Answer:
    done = subprocess.run([curl, *REPORT, *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return read(done.stdout)


def form(fields: dict[str, str]) -> list[str]:
    return [word for name, value in fields.items() for word in ("--form-string", f"{name}={value}")]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """Large enough that curl asks before it sends it: `Expect: 100-continue`."""
    path = tmp_path / "big.bin"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    return path


@pytest.mark.parametrize("file_first", [False, True])
def test_a_form(server: Server, curl: str, media: Path, file_first: bool) -> None:
    words = form(server.signed({"folder": f"curl/{file_first}"}))
    file = ["-F", f"file=@{media / 'dance.gif'}"]
    words = [*file, *words] if file_first else [*words, *file]

    first = run(curl, *words, server.upload_url())
    assert first.status == 200
    assert server.get(first.secure_url).data == (media / "dance.gif").read_bytes()

    second = run(curl, *words, server.upload_url())
    assert (second.status, second.error["code"]) == (400, "signature_used")
    assert f"\nx-cld-error: {second.error['message']}\n" in second.head


def test_put_with_the_whole_grant_in_one_url(server: Server, curl: str, media: Path) -> None:
    """`curl -T FILE "$URL"`, with the URL that `uponce sign --as url` printed."""
    url = printed(beside(server, "sign", "folder=cats", CAPTION, "--as", "url")).strip()

    first = run(curl, "-T", media / "dance.gif", url)
    assert first.status == 200
    assert "/media/image/upload/v" in first.secure_url
    assert server.get(first.secure_url).data == (media / "dance.gif").read_bytes()

    second = run(curl, "-T", media / "cat.jpg", url)
    assert (second.status, second.error["code"]) == (400, "signature_used")


def test_the_printed_command_runs_as_it_is(server: Server, curl: str, tmp_path: Path) -> None:
    """Verbatim, in a shell, in a folder where FILE is a file, whatever characters are signed."""
    picture = samples.jpeg(7)
    (tmp_path / "FILE").write_bytes(picture)
    command = printed(beside(server, "sign", "folder=cats", CAPTION, "--as", "curl"))
    assert command.startswith("curl ")

    first, second = (
        subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, timeout=60, check=True).stdout
        for _ in range(2)
    )
    answer = msgspec.json.decode(first)
    assert server.get(answer["secure_url"]).data == picture
    assert answer["context"] == {"custom": {"caption": CAPTION.removeprefix("context=caption=")}}
    assert msgspec.json.decode(second)["error"]["code"] == "signature_used"


def test_a_url_signed_for_raw_takes_anything(server: Server, curl: str, media: Path) -> None:
    url = printed(beside(server, "sign", "--type", "raw", "--as", "url")).strip()
    answer = run(curl, "-T", media / "cat.jpg", url)
    assert answer.status == 200
    assert "/media/raw/upload/v" in answer.secure_url


def test_a_large_file_is_sent_after_a_100_continue(server: Server, curl: str, big: Path) -> None:
    url = printed(beside(server, "sign", "--type", "raw", "--as", "url")).strip()
    answer = run(curl, "-T", big, "-H", "Expect: 100-continue", "--expect100-timeout", "30", url)
    assert answer.head.startswith("HTTP/1.1 100 Continue\n")
    assert (answer.status, answer.sent) == (200, 64 * MIB)


def test_a_large_file_under_a_used_signature_is_not_sent_at_all(
    server: Server, curl: str, media: Path, big: Path
) -> None:
    """PUT: the grant is in the URL, so the refusal comes instead of `100 Continue`."""
    url = printed(beside(server, "sign", "--type", "raw", "--as", "url")).strip()
    assert run(curl, "-T", media / "note.txt", url).status == 200

    refused = run(curl, "-T", big, "-H", "Expect: 100-continue", "--expect100-timeout", "30", url)
    assert (refused.status, refused.error["code"]) == (400, "signature_used")
    assert "100 Continue" not in refused.head
    assert refused.sent == 0


def test_a_large_form_under_a_used_signature_is_broken_off(server: Server, curl: str, media: Path, big: Path) -> None:
    """POST: the fields are the first bytes of the body, so curl must send a little before it is refused."""
    words = form(server.signed({"folder": "broken-off"}))
    assert run(curl, *words, "-F", f"file=@{media / 'note.txt'}", server.upload_url("raw")).status == 200

    refused = run(curl, *words, "-F", f"file=@{big}", server.upload_url("raw"))
    assert (refused.status, refused.error["code"]) == (400, "signature_used")
    assert refused.sent < 64 * MIB


def test_a_lost_reply_is_asked_for_again(
    server: Server, lossy: LossyProxy, curl: str, media: Path, tmp_path: Path
) -> None:
    """The command of the guide, over a connection that breaks when the upload is stored and not yet answered."""
    (command,) = re.findall(r"```sh\n(.*?)```", (DOCS / "guide/lost-replies.md").read_text(), re.DOTALL)
    shutil.copy(media / "dance.gif", tmp_path / "cat.gif")
    path = urlsplit(server.upload_url()).path
    url = f"{lossy.base}{path}?{urlencode(server.signed({'public_id': 'by-curl'}))}"
    done = subprocess.run(
        ["sh", "-c", command.replace("curl ", f"{curl} -sS -i ")],
        env={"URL": url, "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert lossy.uploads == 2
    assert "idempotent-replayed: true" in done.stdout.lower()
    assert '"public_id":"by-curl"' in done.stdout
