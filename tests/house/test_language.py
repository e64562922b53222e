"""Everything that a user reads is plain English: no words to avoid, no long sentences, no long lines."""

from pathlib import Path

import pytest

from tests.house.language import Complaint, complaints, of_page

ROOT = Path(__file__).parents[2]
EXAMPLES = [*ROOT.glob("examples/*.md"), *ROOT.glob("examples/*/*.md")]  # not what npm installs there
WEB = ROOT / "src/uponce/web/pages"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *EXAMPLES, *WEB.glob("**/*.md")])
# Programs and files of configuration. Users read their texts, and copy their comments.
READ_TOO = sorted([*WEB.glob("**/*.js"), *WEB.glob("**/*.html"), *WEB.glob("**/*.ts"), *ROOT.glob("deploy/*")])

# A text that may stay, with the reason.
ALLOWED: dict[str, str] = {}


def _shown(page: Path, complaint: Complaint) -> str:
    return f"{page.relative_to(ROOT)}:{complaint.line}: {complaint.what}: {complaint.text}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_is_plain_english(page: Path) -> None:
    found = [c for c in of_page(page.read_text()) if not any(text in c.text for text in ALLOWED)]

    assert [_shown(page, complaint) for complaint in found] == []


@pytest.mark.parametrize("file", READ_TOO, ids=lambda file: file.name)
def test_a_program_that_users_read_is_plain_english(file: Path) -> None:
    """Its words only: code has no sentences."""
    found = [
        complaint
        for number, line in enumerate(file.read_text().splitlines(), 1)
        for complaint in complaints(line, number)
        if " words, " not in complaint.what
    ]

    assert [_shown(file, complaint) for complaint in found] == []


def test_every_exception_is_needed() -> None:
    """Or the list would go on to allow what no page says any more."""
    everything = "\n".join(page.read_text() for page in PAGES)

    assert [text for text in ALLOWED if text not in everything] == []
    assert all(ALLOWED.values())


@pytest.mark.parametrize(
    "bad",
    [
        "The older one is told so.",
        "Whoever knows the address can go on.",
        "Nobody can guess it.",
        "The upload begins anew.",
        "All chunks, but for the last.",
        "The file lies in a folder.",
        "Word " * 31 + ".",
        "| a cell | It comes to nothing. |",
        "x " * 61,
    ],
)
def test_the_check_finds_what_is_not_plain(bad: str) -> None:
    assert list(of_page(f"# Title\n\n{bad}\n")) != []


@pytest.mark.parametrize(
    "good",
    [
        "```sh\nwhoever | nobody\n```",
        "The setting `whoever` is code.",
        "First " + "word " * 20 + "end.\nSecond " + "word " * 20 + "end.",
        "| " + "short sentences. " * 20 + " |",
    ],
)
def test_the_check_leaves_alone_what_is_plain(good: str) -> None:
    assert list(of_page(f"# Title\n\n{good}\n")) == []


def test_a_complaint_says_where_and_what_to_write_instead() -> None:
    (found,) = of_page("# Title\n\nFirst line.\n\nNobody knows.\n")

    assert (found.line, found.what) == (5, "'Nobody': say no client, no server, another request")
    assert list(complaints("Fine.")) == []
