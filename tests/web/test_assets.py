"""Files that browsers load: typed, compressed, cacheable, and usable by pages of any origin."""

import gzip

from tests.world import World


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
