"""The texts of the code that a person reads are plain English: errors, answers of commands, logs, settings."""

from tests.house.language import complaints
from tests.house.strings import texts

# A text that may stay, with the reason.
ALLOWED: dict[str, str] = {}


def test_every_text_is_plain_english() -> None:
    found = [
        f"{text.path}:{text.line}: {complaint.what}: {complaint.text}"
        for text in texts()
        if text.text not in ALLOWED
        for complaint in complaints(text.text)
    ]

    assert found == []


def test_the_texts_of_each_kind_are_found() -> None:
    """An error, a setting, a limit, an option, an answer, a line of the log and constants: or the check is empty."""
    everything = [text.text for text in texts()]

    assert len(everything) > 400
    for part in (
        "Empty file. Send at least one byte.",
        "Address to listen on.",
        "Maximum size of an image, in bytes.",
        "Print the version and exit.",
        "listening on CODE",
        "failed; the next round is in",
        "Copy secret.key from a backup of this server",
        "The database is frozen",
    ):
        assert any(part in text for text in everything), part
