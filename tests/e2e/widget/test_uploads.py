"""The upload widget stores what a user gives it, and obeys its attributes and its user."""

import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Dialog

from tests.e2e.conftest import NODE
from tests.e2e.test_readme import block
from tests.e2e.widget.page import MB, NOTHING_KEPT, PAINTED, Widget, bytes_of, crawling, form, in_parts, transfer
from tests.server import Server
from tests.web.test_assets import WIDGET

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


# --- what is uploaded


def test_files_of_all_kinds_are_stored_and_in_the_form(server: Server, widget: Widget, media: Path) -> None:
    names = ["cat.jpg", "dance.gif", "walk.mp4", "note.txt"]
    widget.open()
    widget.pick(*(media / name for name in names))
    answers = widget.stored(4)
    assert [bytes_of(server, each) for each in answers] == [(media / name).read_bytes() for name in names]
    assert len({each["params"]["nonce"] for each in widget.site.asked}) == len(widget.site.asked) == 4
    assert widget.values() == [each["secure_url"] for each in answers]


def test_ten_files_take_turns_with_one_signature_each(widget: Widget, media: Path) -> None:
    widget.open(form('multiple parallel="2"'))
    widget.js(
        """(window.most = 0, el.addEventListener("progress", () => {
          const live = el.uploads.filter(({ state }) => ["signing", "uploading"].includes(state));
          window.most = Math.max(window.most, live.length);
        }))"""
    )
    cat = (media / "cat.jpg").read_bytes()
    widget.pick(*({"name": f"cat {n}.jpg", "mimeType": "image/jpeg", "buffer": cat} for n in range(10)))
    answers = widget.stored(10)
    assert len({each["public_id"] for each in answers}) == 10
    assert len(widget.site.asked) == 10
    assert widget.page.evaluate("window.most") == 2


def test_all_elements_of_a_page_together_have_five_requests_at_a_time(widget: Widget) -> None:
    """Over HTTP/1.1 a browser keeps a seventh request back. The widget would take it for a broken line."""
    widget.open(form('multiple parallel="10" id="many"') + form('multiple id="other"', "other"))
    widget.page.evaluate(
        """(window.most = 0, window.took_turns = false, document.addEventListener("progress", () => {
          const of = (id, ...states) =>
            document.getElementById(id).uploads.filter(({ state }) => states.includes(state));
          const [many, other] = ["many", "other"].map((id) => of(id, "signing", "uploading").length);
          window.most = Math.max(window.most, many + other);
          window.took_turns ||= other > 0 && of("many", "queued").length > 0;
        }))"""
    )
    # The second element gets its files as soon as the first one has begun, and before any upload ends.
    widget.page.evaluate(
        """(async () => {
          for (const id of ["many", "other"]) {
            document.getElementById(id).add(Array.from({ length: 8 }, (_, n) => new File([id, n], n + ".txt")));
            await null;
          }
        })()"""
    )
    assert (len(widget.stored(8, of="#many")), len(widget.stored(8, of="#other"))) == (8, 8)
    assert widget.page.evaluate("[window.most, window.took_turns]") == [5, True]


def test_the_back_end_is_asked_for_what_the_attributes_say(widget: Widget, media: Path) -> None:
    widget.open(form('folder="cats" tags="a,b" headers=\'{"X-CSRFToken": "t"}\''))
    with widget.page.expect_request("**/sign") as asking:
        widget.pick(media / "cat.jpg")
    assert asking.value.headers["x-csrftoken"] == "t"
    (answer,) = widget.stored()
    assert (answer["folder"], answer["tags"]) == ("cats", ["a", "b"])
    (asked,) = widget.site.asked
    assert asked["file"] == {"name": "cat.jpg", "size": (media / "cat.jpg").stat().st_size, "type": "image/jpeg"}
    assert set(asked["params"]) == {"nonce", "folder", "tags"}


def test_a_page_may_sign_in_its_own_way(server: Server, widget: Widget, media: Path) -> None:
    widget.open('<uponce-upload cloud="media"></uponce-upload>')
    fields = server.signed({"public_id": "own-way"})
    widget.js("(el.signer = async (params, file) => ({ fields: argument, asked: [params, file.name] }), 0)", fields)
    widget.pick(media / "cat.jpg")
    (answer,) = widget.stored()
    assert answer["public_id"] == "own-way"
    assert widget.site.asked == []


def test_a_server_address_may_end_with_a_slash(server: Server, widget: Widget, media: Path) -> None:
    widget.open(f'<uponce-upload cloud="media" server="{server.base}/"></uponce-upload>')
    widget.js("(el.signer = async () => ({ fields: argument }), 0)", server.signed({"public_id": "slash"}))
    widget.pick(media / "cat.jpg")
    (answer,) = widget.stored()
    assert answer["public_id"] == "slash"


def test_a_sandboxed_page_uploads(server: Server, widget: Widget, media: Path) -> None:
    """As the preview in an editor of pages. Its origin is opaque: the browser refuses much of what the widget uses."""
    widget.site.policy = "sandbox allow-scripts"
    widget.open('<uponce-upload cloud="media"></uponce-upload>')
    widget.js("(el.signer = async () => ({ fields: argument }), 0)", server.signed({"public_id": "sandboxed"}))
    widget.pick(media / "cat.jpg")
    widget.until("['done', 'refused'].includes(el.uploads[0]?.state)")
    assert widget.states() == ["done"]


def test_a_bundle_that_is_no_module_has_the_widget(widget: Widget, media: Path, node: str, tmp_path: Path) -> None:
    """esbuild makes such a script if nothing else is asked for. The script does not know its own address."""
    built = tmp_path / "bundle.js"
    command = ["node_modules/.bin/esbuild", str(WIDGET.joinpath("widget.js")), "--bundle", f"--outfile={built}"]
    assert node
    subprocess.run(command, cwd=NODE, check=True, capture_output=True, timeout=120)
    widget.page.goto(f"{widget.site.url}nowhere")
    widget.page.add_script_tag(content=built.read_text())
    widget.page.evaluate(f"document.body.innerHTML = `{form()}`; 0")
    widget.pick(media / "cat.jpg")
    widget.stored()


# --- what the user does


def test_pause_and_continue(server: Server, widget: Widget, film: Path) -> None:
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        widget.click("Pause film.bin")
        proxy.go_on()
        assert widget.states() == ["paused"]
        assert widget.status().startswith("Paused at ")
        widget.click("Continue film.bin")
        (answer,) = widget.stored()
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(widget.site.asked) == 1


def test_a_removed_upload_ends_and_spends_nothing(server: Server, widget: Widget, film: Path) -> None:
    places: list[str] = []
    widget.page.on("request", lambda each: places.append(each.url) if each.method == "DELETE" else None)
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        with widget.page.expect_response(lambda each: each.request.method == "DELETE") as ended:
            widget.click("Remove film.bin")
            proxy.go_on()
        assert ended.value.status == 204
    assert widget.js("el.uploads") == []
    (place,) = places
    assert server.get(place.replace(proxy.base, server.base)).status == 404
    assert widget.values() == []


def test_a_removed_upload_does_not_come_back_if_its_server_has_ended_it(
    server: Server, widget: Widget, film: Path
) -> None:
    places: list[str] = []
    widget.page.on("request", lambda each: places.append(each.url) if each.method == "PATCH" else None)
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        widget.click("Pause film.bin")
        proxy.go_on()
        place = places[0].replace(proxy.base, server.base)
        assert server.get(place, method="DELETE", headers={"Tus-Resumable": "1.0.0"}).status == 204
        with widget.page.expect_response(lambda each: each.request.method == "DELETE") as ended:
            widget.click("Remove film.bin")
        assert ended.value.status == 404
        widget.page.wait_for_timeout(500)
    widget.eventually(NOTHING_KEPT)


def test_dropping_works_like_picking(server: Server, widget: Widget) -> None:
    widget.open(form('multiple accept=".txt"'))
    assert widget.page.evaluate(transfer("drop"), ["uponce-upload", "note.txt", "dropped"])
    assert widget.page.evaluate(transfer("drop"), ["uponce-upload", "note.exe", "dropped"])
    (answer,) = widget.stored()
    assert bytes_of(server, answer) == b"dropped"
    assert sorted(widget.states()) == ["done", "refused"]


def test_a_paste_goes_to_one_widget_and_leaves_text_fields_alone(server: Server, widget: Widget) -> None:
    widget.open(f"<input id=field>{form()}{form()}".replace("<uponce-upload", "<uponce-upload id=first", 1))
    second = "form:nth-of-type(2) uponce-upload"
    assert widget.page.evaluate(transfer("paste"), ["body", "one.txt", "pasted"])
    (answer,) = widget.stored(of="#first")
    assert bytes_of(server, answer) == b"pasted"
    widget.js("el.focus()", of=second)
    assert widget.page.evaluate(transfer("paste"), [second, "two.txt", "pasted"])
    widget.stored(of=second)
    widget.page.focus("#field")
    assert not widget.page.evaluate(transfer("paste"), ["#field", "three.txt", "pasted"])
    assert len(widget.site.asked) == 2


HIDDEN = "<div style='visibility:hidden'>{}</div>"


@pytest.mark.parametrize(
    "around", ["<dialog>{}</dialog>", "<details>{}</details>", HIDDEN, "<fieldset disabled>{}</fieldset>"]
)
def test_a_paste_goes_to_the_first_widget_that_the_user_sees_and_may_use(widget: Widget, around: str) -> None:
    widget.open(around.format(form("id=first")) + form("id=second"))
    assert widget.page.evaluate(transfer("paste"), ["body", "one.txt", "pasted"])
    assert widget.page.evaluate("[first, second].map((each) => each.uploads.length)") == [0, 1]
    widget.stored(of="#second")


def test_without_multiple_the_newer_file_replaces_the_older(widget: Widget, media: Path) -> None:
    widget.open(form(""))
    widget.pick(media / "cat.jpg")
    widget.stored()
    widget.pick(media / "dance.gif")
    widget.until("el.answers[0]?.original_filename === 'dance'")
    assert widget.values() == [widget.js("el.value")]


def test_the_keyboard_is_enough(widget: Widget, media: Path) -> None:
    widget.open()
    widget.page.on("filechooser", lambda chooser: chooser.set_files([media / "cat.jpg", media / "dance.gif"]))
    widget.page.evaluate(PAINTED)
    widget.page.keyboard.press("Tab")
    widget.until("el.shadowRoot.activeElement?.part.contains('button')")
    widget.page.keyboard.press("Enter")
    widget.stored(2)
    widget.page.keyboard.press("Tab")
    widget.page.keyboard.press("Enter")
    assert [each["name"] for each in widget.js("el.uploads")] == ["dance.gif"]
    # The focus goes to what is nearest, and is not lost.
    assert widget.js("el.shadowRoot.activeElement.getAttribute('aria-label')") == "Remove dance.gif"


def test_leaving_the_page_amid_an_upload_needs_a_yes(server: Server, widget: Widget, film: Path) -> None:
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    widget.page.on("dialog", stay)
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open()
        widget.page.mouse.click(5, 5)  # browsers ask only on pages that were used
        widget.pick(film)
        widget.until("el.uploads[0]?.loaded > 0")
        with widget.page.expect_event("dialog"):
            widget.page.evaluate("setTimeout(() => { location.href = '/nowhere' })")
        proxy.go_on()
        widget.stored()
    assert asked == ["beforeunload"]
    widget.page.evaluate("setTimeout(() => { location.href = '/nowhere' })")
    widget.page.wait_for_url("**/nowhere")
    assert asked == ["beforeunload"]


def test_an_older_browser_asks_too(widget: Widget) -> None:
    """Chrome and Edge before 119 look at `returnValue` only. A form that waits for nothing sets none."""
    leave = """(() => {
      const event = document.createEvent("BeforeUnloadEvent");
      event.initEvent("beforeunload", false, true);
      dispatchEvent(event);
      return event.returnValue;
    })()"""
    widget.open()
    assert widget.page.evaluate(leave) == ""
    widget.js("(el.signer = () => new Promise(() => {}), 0)")
    widget.pick({"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})
    widget.until("el.uploads[0]?.state === 'signing'")
    assert widget.page.evaluate(leave)


def test_the_code_of_the_guide(server: Server, widget: Widget, media: Path) -> None:
    guide = "docs/guide/widget.md"
    page = block(guide, "html", "<form").replace("https://media.example", server.base)
    widget.open(page)
    widget.page.evaluate("console.log = (...words) => { (window.lines ??= []).push(words.join(' ')) }")
    widget.page.evaluate(f"(() => {{ {block(guide, 'js', 'addEventListener')}; window.widget = widget }})()")
    widget.page.evaluate(block(guide, "js", "widget.messages"))
    assert widget.page.locator("uponce-upload [part=button]").inner_text() == "Dateien wählen"
    widget.pick(media / "cat.jpg")
    (answer,) = widget.stored()
    lines = widget.page.evaluate("window.lines")
    size = (media / "cat.jpg").stat().st_size
    assert f"cat.jpg {answer['secure_url']}" in lines
    assert f"cat.jpg queued 0 {size}" in lines
    with widget.page.expect_request("**/albums") as sent:
        widget.page.click("text=Save")
    assert sent.value.post_data == urlencode({"photos": answer["secure_url"]})


def test_a_page_may_set_some_times_and_keep_the_others(widget: Widget) -> None:
    times = {"delay": 1000, "tries": 8, "stall": 30_000, "keep": 200_000_000}
    # Before the widget has loaded.
    widget.open(form() + "<script>document.querySelector('uponce-upload').timing = { tries: 3 }</script>")
    assert widget.js("el.timing") == times | {"tries": 3, "delay": 20}  # the delay of all tests
    assert widget.js("(el.timing = { keep: 0 }, el.timing)") == times | {"keep": 0}
    # Frameworks unset a property so.
    assert widget.js("(el.timing = undefined, el.messages = undefined, el.timing)") == times
    assert widget.page.locator("uponce-upload [part=button]").inner_text() == "Choose files"


def test_an_unreadable_file_of_a_dropped_folder_is_named_and_the_others_are_stored(widget: Widget) -> None:
    widget.open()
    widget.js(
        """(() => {
          const file = (name) => new File(["dropped"], name);
          const readable = (name) => ({ isFile: true, name, file: (found) => found(file(name)) });
          const broken = { isFile: true, name: "broken.txt", file: (_, failed) => failed(new Error("NotReadable")) };
          const found = [[readable("a.txt"), broken, readable("b.txt")], []];
          const folder = { isDirectory: true, createReader: () => ({ readEntries: (give) => give(found.shift()) }) };
          const items = [{ getAsFile: () => null, webkitGetAsEntry: () => folder }, { getAsFile: () => file("c.txt") }];
          el.dispatchEvent(Object.assign(new Event("drop"), { dataTransfer: { types: ["Files"], items } }));
        })()"""
    )
    widget.stored(3)
    assert widget.js("el.uploads.map(({ name, error }) => `${name} ${error?.code ?? 'done'}`)") == [
        "a.txt done",
        "broken.txt unreadable",
        "b.txt done",
        "c.txt done",
    ]


def test_what_systems_hide_in_a_dropped_folder_is_not_uploaded(widget: Widget) -> None:
    """A hidden file that the user drops or chooses itself is uploaded."""
    widget.open()
    widget.js(
        """(() => {
          const file = (name) => ({ isFile: true, name, file: (found) => found(new File(["dropped"], name)) });
          const folder = (name, ...inside) => {
            const found = [inside, []];
            return { isDirectory: true, name, createReader: () => ({ readEntries: (give) => give(found.shift()) }) };
          };
          const system = [".DS_Store", "Thumbs.db", "desktop.ini"].map(file);
          const inside = [folder(".git", file("b.txt")), folder("in", file("c.db"))];
          const cats = folder(".cats", ...system, file("a.txt"), ...inside);
          const items = [
            { getAsFile: () => null, webkitGetAsEntry: () => cats },
            { getAsFile: () => new File(["dropped"], ".env"), webkitGetAsEntry: () => file(".env") },
          ];
          el.dispatchEvent(Object.assign(new Event("drop"), { dataTransfer: { types: ["Files"], items } }));
        })()"""
    )
    widget.until("el.uploads.some(({ name }) => name === '.env')")
    assert widget.js("el.uploads.map(({ name }) => name)") == ["a.txt", "c.db", ".env"]
    widget.stored(3)


@pytest.mark.parametrize(
    ("language", "status"),
    [
        ("de", "1,5 MB · Uploaded"),
        ("de_AT", "1,5 MB · Uploaded"),
        ("", "1.5 MB · Uploaded"),
        ("?", "1.5 MB · Uploaded"),
    ],
)
def test_numbers_follow_the_language_of_the_page_if_it_has_one(widget: Widget, language: str, status: str) -> None:
    """Templates write the name of a locale, which browsers refuse as a language."""
    widget.site.language = language
    widget.open()
    widget.pick({"name": "a.txt", "mimeType": "text/plain", "buffer": b"x" * (MB + MB // 2)})
    widget.stored()
    assert widget.status() == status


@pytest.mark.parametrize("stop", ["el.clear()", "el.form.reset()", "el.remove()", "el.pause()"])
def test_files_that_stop_together_ask_for_no_signature(widget: Widget, stop: str) -> None:
    widget.open(form("multiple forget"))
    asked = widget.js(
        f"""(async () => {{
          let asked = 0;
          const soon = () => new Promise((resolve) => setTimeout(resolve));
          el.signer = () => ((asked += 1), new Promise(() => {{}}));
          el.add(Array.from({{ length: 20 }}, (_, n) => new File(["x"], `${{n}}.txt`)));
          await soon();
          const before = asked;
          {stop};
          await soon();
          return [before, asked];
        }})()"""
    )
    assert asked == [3, 3]
