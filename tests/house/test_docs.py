"""The manual says what the code does."""

import importlib.util
import re
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest

from proof.mutation.by_hand import BY_HAND
from tests.house.files import files_below
from uponce.app.services import Services
from uponce.core.formats import FORMATS
from uponce.core.signature import KEY_OCTETS
from uponce.web.app import Route
from uponce.web.cloudinary.relayed import METHODS
from uponce.web.errors import INTERNAL_ERROR
from uponce.web.operators import Scrape
from uponce.web.routes import create_app

ROOT = Path(__file__).parents[2]
SCRAPE = Scrape("token", bytes)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()


@pytest.mark.parametrize("name", sorted(GENERATOR.PAGES))
def test_generated_pages_are_up_to_date(name: str) -> None:
    """`make docs` would change nothing."""
    assert GENERATOR.PAGES[name]() == (ROOT / name).read_text()


def test_codes_outside_the_tree_of_errors_are_documented() -> None:
    """One is for a defect of the server. Front servers make the others. Most of them are errors of uponce too."""
    page = (ROOT / "docs/reference/errors.md").read_text()
    fronts = "".join((ROOT / "deploy" / name).read_text() for name in ("Caddyfile", "nginx.conf"))
    codes = {INTERNAL_ERROR, *re.findall(r'"code":"(\w+)"', fronts)}
    of_uponce = {"server_busy", "storage_unavailable", "range_not_satisfiable", "malformed_request"}
    assert codes == {"internal_error", "server_unavailable"} | of_uponce
    assert [code for code in codes if f"| `{code}` |" not in page] == []


def test_figures_of_a_campaign_add_up_over_its_runs() -> None:
    """Violations too; measures do not; other campaigns, and runs of another shape, stand apart."""

    def recorded(name: str, seed: int, counts: dict[str, int], lost: int, shape: str = "new") -> dict[str, object]:
        zeros, controls = {"lost": lost}, {"mutant": 2}
        did = {"campaign": name, "seed": seed, "counts": counts, "inside": 1000}
        run = {"date": "2025-11-25", "commit": f"c{seed}", "dirty": seed == 2, "machine": {"cores": 2}, "took": 30.0}
        return {**run, "shape": shape, "report": {**did, "zeros": zeros, "controls": controls}}

    section = GENERATOR.campaigns_section(
        [
            recorded("kill", 8, {"kills": 600}, 0, "old"),
            recorded("kill", 1, {"kills": 700, "worst ms": 9}, 0),
            recorded("race", 3, {"signatures": 5}, 0),
            recorded("kill", 2, {"kills": 800, "worst ms": 7}, 1),
        ]
    )

    kill, race = section.split("### race")
    for figure in (
        "|  | old | new |",
        "| 600 kills | 1,500 kills<br>9 worst ms |",
        "| 1,000 | 2,000 |",
        "| 0 lost | 1 lost |",
        "4 mutant",
        "`c1`, `c2` + changes",
        "| 8 | 1, 2 |",
    ):
        assert figure in kill
    assert "5 signatures" in race
    assert "| 0 lost |" in race


# A POST with X-HTTP-Method-Override, and the actions, which the page names one by one.
NAMED_OTHERWISE = {
    ("/tus/{cloud}/{signature}/{upload}", "POST"),
    ("/v1_1/{cloud}/signatures", "POST"),
    ("/v1_1/{cloud}/signatures/{action}", "POST"),
}


def test_every_route_is_documented() -> None:
    """docs/reference/http.md names every path with every method."""
    page = (ROOT / "docs/reference/http.md").read_text()
    cells = re.findall(r"^\| (`[A-Z].*?) \|", page, re.MULTILINE)
    app = create_app(Services(*[None] * 7), lambda _: nullcontext(), None, SCRAPE)  # type: ignore[arg-type]
    served = {
        (path.replace(":path", ""), method) for row in app.routes for path in row.paths for method in _methods(row)
    }
    named = {
        (path, method)
        for cell in cells
        for path in re.findall(r"(/[^`]*)`", cell)
        for method in re.findall(r"[A-Z]{3,}", cell)
    }

    assert len(served) > 30
    assert sorted(served - named - NAMED_OTHERWISE) == []


def _methods(row: Route) -> Iterable[str]:
    """Return the methods that uponce answers itself, where an upstream would answer all."""
    return row.endpoint.args[1] if row.methods is METHODS else row.methods  # type: ignore[attr-defined]


def test_links_between_pages_lead_somewhere() -> None:
    """No page links to a file that is not there."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *files_below(ROOT / "proof", ".md")]
    pages += [*ROOT.glob("examples/*.md"), *ROOT.glob("examples/*/*.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {match[1]}"
        for page in pages
        for match in LINK.finditer(page.read_text())
        if not (page.parent / match[1]).exists()
    ]

    assert broken == []


def test_the_index_names_every_page() -> None:
    """docs/README.md links to each guide and each reference page."""
    index = (ROOT / "docs/README.md").read_text()
    pages = [*ROOT.glob("docs/guide/*.md"), *ROOT.glob("docs/reference/*.md"), *ROOT.glob("docs/design/*.md")]

    assert len(pages) > 15
    assert [str(page) for page in pages if f"]({page.relative_to(ROOT / 'docs')})" not in index] == []


OF_FRONTS = {"UPONCE_CONFIG", "UPONCE_SITE", "UPONCE_SERVERS"}


def test_the_index_has_the_pages_in_the_order_in_which_people_need_them() -> None:
    order = ["install", "first-upload", "browser", "from-cloudinary", "one-box", "production"]
    named = re.findall(r"\]\(guide/([\w-]+)\.md\)", (ROOT / "docs/README.md").read_text())

    assert [name for name in dict.fromkeys(named) if name in order] == order
    assert {page.suffix for page in (ROOT / "docs/reference").iterdir()} == {".md", ".svg"}


def test_pages_name_what_is_supported_and_how_a_grant_is_named() -> None:
    assert "**Systems.** Linux for production. macOS" in (ROOT / "README.md").read_text()
    bytes_of_the_hash = KEY_OCTETS - 5
    spend = " ".join((ROOT / "docs/design/spend.md").read_text().split())
    assert f"5 bytes of the signed timestamp, then the first {bytes_of_the_hash} bytes of SHA-256" in spend


def test_every_decision_has_a_number_of_its_own() -> None:
    """Pages, comments and messages name a decision by its number."""
    numbers = [page.name[:4] for page in (ROOT / "docs/adr").glob("[0-9]*.md")]
    assert len(numbers) > 30
    assert sorted(numbers) == sorted(set(numbers))


def test_every_setting_that_a_page_names_exists() -> None:
    """Or a reader would set a name that uponce refuses."""
    settings = set(re.findall(r"^\| `(UPONCE_\w+)`", (ROOT / "docs/reference/settings.md").read_text(), re.MULTILINE))
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    named = {(page.name, name) for page in pages for name in re.findall(r"\bUPONCE_[A-Z0-9_]+\b", page.read_text())}

    assert len(settings) > 40
    assert sorted((page, name) for page, name in named if name not in settings | OF_FRONTS) == []


def test_files_and_tasks_that_pages_name_exist() -> None:
    """`deploy/…` is a file of this project, and `make …` a task of the Makefile, or a reader gets an error."""
    pages = "\n".join(page.read_text() for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    tasks = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    files = set(re.findall(r"\bdeploy/[\w./-]+\w", pages))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", pages, re.MULTILINE))

    assert len(files) >= 5 and len(named) >= 8
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert named - tasks == set()


LANGUAGES = {"css", "diff", "html", "ini", "js", "python", "sh", "sql", "text", "ts", "yaml"}


def test_the_guides_have_one_name_for_each_language() -> None:
    """Or tests that look for `python` would not see `py`."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/guide/*.md"), *ROOT.glob("examples/*/README.md")]
    lines = [line for page in pages for line in page.read_text().splitlines() if line.lstrip().startswith("```")]

    assert len(lines) > 200
    assert {line.strip("` ") for line in lines[::2]} <= LANGUAGES
    assert {line.strip("` ") for line in lines[1::2]} == {""}


def snippets() -> list[tuple[str, str]]:
    """The code of the pages, and the programs of the examples."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/guide/*.md")]
    programs = [*ROOT.glob("examples/*/*.js"), *ROOT.glob("examples/*/public/*.html")]
    return [(str(path.relative_to(ROOT)), path.read_text()) for path in programs] + [
        (str(page.relative_to(ROOT)), code)
        for page in pages
        for code in re.findall(r"^```(?:js|python|sh)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


def test_every_snippet_that_signs_has_a_nonce() -> None:
    """Two files of one second would otherwise share one signature, which works once."""
    signing = [(page, code) for page, code in snippets() if "api_sign_request(" in code]

    assert len(signing) >= 8
    assert [page for page, code in signing if "nonce" not in code] == []


def test_every_snippet_sends_the_fields_before_the_file() -> None:
    """A bad or used signature is then refused before the file is read."""
    sending = [(page, code) for page, code in snippets() if 'append("file"' in code]

    assert len(sending) >= 6
    assert [page for page, code in sending if code.index("append(name") > code.index('append("file"')] == []


def test_no_snippet_names_an_upload_by_the_time() -> None:
    assert [page for page, code in snippets() if re.search(r"\$\(date|Date\.now\(\)(?! / 1000)", code)] == []


def test_files_stay_within_their_budget() -> None:
    """No source file is longer than 400 lines."""
    files = [file for folder in ("src", "tests", "proof") for file in files_below(ROOT / folder, ".py")]
    long = {str(file.relative_to(ROOT)): n for file in files if (n := len(file.read_text().splitlines())) > 400}

    assert len(files) > 500
    assert long == {}


def test_lock_file_has_hashes_and_no_index() -> None:
    """Every pin carries a hash; no line names an address."""
    text = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^[a-z0-9-]+==", text, re.MULTILINE)

    assert len(pins) > 20
    assert "://" not in text and "--index" not in text
    assert all("--hash=sha256:" in block for block in re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:])


def test_the_proofs_that_the_guarantees_name_exist() -> None:
    """docs/reference/guarantees.md names no file, no function and no mutant that is gone. Each promise has both."""
    page = (ROOT / "docs/reference/guarantees.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")][2:]
    file = re.compile(r"`((?:tests|proof)/[\w/]+\.py)(?:::(\w+))?`")
    missing = [
        f"{path}::{function}"
        for path, function in file.findall(page)
        if not (ROOT / path).exists() or (function and f"def {function}(" not in (ROOT / path).read_text())
    ]
    by_hand = {name for row in rows for name in re.findall(r'"([^"]+)"', row[2])}

    assert len(rows) > 10
    assert [row[0] for row in rows if not all(map(file.search, row[1:]))] == []
    assert missing == []
    assert by_hand - {mutant.name for mutant in BY_HAND} == set()


def test_every_readable_format_is_documented() -> None:
    """The page of accepted formats has a row for each format that the code reads, and no other row."""
    page = (ROOT / "docs/reference/formats.md").read_text()

    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(FORMATS)
