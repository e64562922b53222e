"""Plain English as rules that a program can check: words to avoid, long sentences, long lines."""

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_WORDS = 30
MAX_COLUMNS = 120

# What to write instead is beside each. The words that bend with their sentence are patterns.
AVOID = {
    r"whoever": "the client that …, the server that …",
    r"(?<!user )(?<!person )(?<!people )who": "the client that …, the server that …",
    r"nobody|somebody|no one|someone": "no client, no server, another request",
    r"told|tells? of|telling|tells|hears?|heard": "receives, returns, shows, reports",
    r"anew": "again, a new …",
    r"but for|left away|leave it away|to be had": "except, omitted, available",
    r"(lies|lie|lay|lies|stands|stand|stood) (in|there|beside|below|above|on)": "is in",
    r"gives? way|lets? go of|takes? over from|took over from": "yields the lock to, releases, replaces",
    r"of (its|their|his|one's|your|our) own": "separate, its own",
    r"meanwhile": "while the backup runs, before the commit",
    r"by itself": "automatically",
    r"(comes|come|came) to nothing|is none|are none": "fails, does not exist",
    r"in the midst of|in earnest|in the very moment": "during, while, in production",
    r"permits?|renditions?|fate": "signature, grant, derived asset, outcome (see the glossary)",
    r"has to be|have to be|had to be": "must be",
}
_AVOID = {re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE): cure for words, cure in AVOID.items()}
_SENTENCE = re.compile(r"<br>|(?<=[.!?])[)\"'”*_]*\s+(?=[\"'“(*_`\w\[])")
_CODE = re.compile(r"(`+).+?\1", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_QUOTED = re.compile(r"“[^”]*”")


class Complaint(NamedTuple):
    line: int
    what: str
    text: str


def complaints(text: str, line: int = 1) -> Iterator[Complaint]:
    """What is wrong with one paragraph: every word to avoid, and every sentence of more than 30 words."""
    plain = _QUOTED.sub("QUOTED", _LINK.sub(r"\1", _CODE.sub("CODE", text)))
    for sentence in _SENTENCE.split(" ".join(plain.split())):
        for pattern, cure in _AVOID.items():
            for found in pattern.finditer(sentence):
                yield Complaint(line, f"'{found[0]}': say {cure}", sentence)
        words = len([word for word in re.findall(r"[^\W_][\w'’.-]*", sentence) if word != "CODE"])
        if words > MAX_WORDS:
            yield Complaint(line, f"{words} words, {MAX_WORDS} are allowed", sentence)


def of_page(markdown: str) -> Iterator[Complaint]:
    """What is wrong with a Markdown page. Code is not read; cells of tables may be long lines."""
    for line, paragraph, prose in _paragraphs(markdown):
        yield from complaints(paragraph, line)
        if not prose:
            continue
        for offset, text in enumerate(paragraph.split("\n")):
            if len(text) > MAX_COLUMNS and " " in text.strip():
                yield Complaint(line + offset, f"{len(text)} columns, {MAX_COLUMNS} are allowed", text)


def _paragraphs(markdown: str) -> Iterator[tuple[int, str, bool]]:
    """(first line, text, whether lines may not be long): paragraphs, items of lists, and each cell of a table."""
    kept: list[str] = []
    first, fenced = 1, False
    for number, line in enumerate([*markdown.split("\n"), ""], 1):
        fence = line.lstrip().startswith("```")
        item = re.match(r"\s*([-*]|\d+\.)\s", line) is not None
        table = line.lstrip().startswith("|")
        ends = fence or fenced or table or item or not line.strip() or line.startswith(("#", "<!--", "!["))
        if ends and kept:
            yield first, "\n".join(kept), True
            kept = []
        fenced ^= fence
        if fence or fenced or not line.strip() or line.startswith(("<!--", "![")):
            continue
        if table:
            for cell in re.split(r"(?<!\\)\|", line):
                yield number, cell, False
            continue
        first = first if kept else number
        kept.append(line)
        if line.startswith("#"):
            yield number, line, True
            kept = []
