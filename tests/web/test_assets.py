"""Files that browsers load: typed, compressed, cacheable, and usable by pages of any origin."""

import gzip
import json
import re
import subprocess
from importlib.resources import files

from tests.e2e.conftest import needed
from tests.world import World
from uponce import __version__
from uponce.core.errors import UponceError

WIDGET = files("uponce.web.pages").joinpath("widget")
OWN_CODES = {"refused", "sign_failed", "unavailable", "unreachable", "unreadable", "too_many_files"}


def test_the_widget_is_a_script_that_pages_of_any_origin_may_run(shared: World) -> None:
    answer = shared.get("/widget.js")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b'define("uponce-upload"' in answer.body


def test_a_browser_that_has_the_file_gets_304(shared: World) -> None:
    answer = shared.get("/widget.js")
    assert answer.headers["cache-control"] == "public, max-age=3600"
    etag = answer.headers["etag"]
    for condition in (etag, f'"other", {etag}', etag.removeprefix("W/"), "*"):
        again = shared.get("/widget.js", **{"if-none-match": condition})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == etag
    assert shared.get("/widget.js", **{"if-none-match": 'W/"other"'}).status == 200


def test_the_file_is_compressed_for_those_who_accept_it(shared: World) -> None:
    plain = shared.get("/widget.js")
    assert "content-encoding" not in plain.headers
    for accepted in ("gzip", "br, gzip;q=0.5", "deflate, GZIP"):
        packed = shared.get("/widget.js", **{"accept-encoding": accepted})
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.headers["vary"] == "accept-encoding" == plain.headers["vary"]
        assert gzip.decompress(packed.body) == plain.body
        assert int(packed.headers["content-length"]) == len(packed.body)
    for accepted in ("", "br", "gzip;q=0", "gzip; q=0.000"):
        assert shared.get("/widget.js", **{"accept-encoding": accepted}).body == plain.body


def test_head_says_what_get_would_send(shared: World) -> None:
    got, head = shared.get("/widget.js"), shared.request("HEAD", "/widget.js")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.body))
    assert head.headers["etag"] == got.headers["etag"]


def test_nothing_can_be_posted_to_it(shared: World) -> None:
    assert shared.request("POST", "/widget.js").status == 405


def test_the_widget_has_less_than_12_kib_on_the_wire(shared: World) -> None:
    assert int(shared.get("/widget.js", **{"accept-encoding": "gzip"}).headers["content-length"]) < 12 * 1024


def test_the_widget_is_sent_as_it_is_written_except_its_comments_and_indentation(shared: World) -> None:
    written, sent = (
        [line.lstrip(" ") for line in WIDGET.joinpath("widget.js").read_text().split("\n")],
        shared.get("/widget.js").body.decode().split("\n"),
    )
    assert sent[0].startswith("/*! uponce upload widget. MIT.")
    left = [line for line, arrived in zip(written, sent, strict=True) if line != arrived]
    assert len(left) > 30
    assert [line for line in left if not line.startswith(("// ", "/** "))] == []
    assert [line for line in sent if " // " in line] == []
    assert {arrived for line, arrived in zip(written, sent, strict=True) if line != arrived} == {""}


def _all(error: type[UponceError]) -> set[str]:
    own = {error.code} if "code" in vars(error) else set()
    return own.union(*(_all(each) for each in error.__subclasses__()))


def _texts() -> set[str]:
    messages = WIDGET.joinpath("widget.js").read_text().partition("const MESSAGES = {")[2].partition("};")[0]
    return set(re.findall(r"^  (\w+): ", messages, re.MULTILINE))


def test_the_types_name_every_text_and_member_of_the_widget() -> None:
    types, script = WIDGET.joinpath("widget.d.ts").read_text(), WIDGET.joinpath("widget.js").read_text()
    keys = types.partition("export type MessageKey =")[2].partition(";")[0]
    assert set(re.findall(r'"(\w+)"', keys)) == _texts()
    declared = types.partition("class UponceUpload")[2].partition("declare global")[0]
    element = script.partition("class UponceUpload")[2]
    inherited = {"addEventListener", "removeEventListener"}
    for name in set(re.findall(r"^  (?:readonly |get |set )?(\w+)\??[:(]", declared, re.MULTILINE)) - inherited:
        assert re.search(rf"^  (?:(?:get|set) )?{name}\b", element, re.MULTILINE), name


def test_a_listener_whose_event_has_a_type_can_be_removed() -> None:
    types = WIDGET.joinpath("widget.d.ts").read_text()
    adding, removing = (
        re.findall(rf"^  {what}EventListener(.*?)void;$", types, re.MULTILINE | re.DOTALL) for what in ("add", "remove")
    )
    assert len(adding) == 2
    assert removing == [each.replace("AddEventListenerOptions", "EventListenerOptions") for each in adding]


def test_the_widget_has_words_for_errors_that_exist() -> None:
    words = WIDGET.joinpath("widget.js").read_text().partition("const FINAL = ")[2].partition(";")[0]
    final = set(re.findall(r'"(\w+)"', words))
    assert final <= _all(UponceError) | OWN_CODES
    assert final <= _texts()
    assert {"file_too_large", "signature_used", "signature_revoked", "stale_request"} <= _texts() & _all(UponceError)


def test_the_npm_package_is_of_this_version_and_complete() -> None:
    package = json.loads(WIDGET.joinpath("package.json").read_text())
    assert package["version"] == __version__
    assert "dependencies" not in package
    named = {*package["files"], package["types"], *package["exports"]["."].values()}
    assert all(WIDGET.joinpath(name).is_file() for name in named)


def test_a_server_that_renders_pages_may_import_the_widget() -> None:
    """There, no custom elements exist."""
    script = f"console.log((await import({str(WIDGET.joinpath('widget.js'))!r})).UponceUpload.name)"
    command = [needed("node"), "--input-type=module", "--eval", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("UponceUpload\n", "")
