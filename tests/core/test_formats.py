"""The table of formats: one name for each, and what a file is served as, which is nothing that a browser would run."""

import pytest

from uponce.core.formats import BINARY, FORMATS, canonical_format, is_download, media_type, stored_type
from uponce.core.values import MediaFacts, ResourceType


@pytest.mark.parametrize("name", FORMATS)
def test_media_are_served_as_what_they_are(name: str) -> None:
    type_ = media_type(MediaFacts(FORMATS[name].kind, name))
    assert type_ == FORMATS[name].media_type
    assert type_.startswith(("image/", "video/", "audio/", "application/pdf"))


@pytest.mark.parametrize(
    ("extension", "name"),
    [
        *(("JPEG", "jpg"), ("jpe", "jpg"), ("jpg", "jpg"), ("TIF", "tiff"), ("m4v", "mp4"), ("PNG", "png"), ("", "")),
        *(("MPEG", "mpg"), ("ogv", "ogg"), ("opus", "ogg"), ("3g2", "3gp"), ("m2ts", "ts"), ("asf", "wmv")),
    ],
)
def test_canonical_format(extension: str, name: str) -> None:
    assert canonical_format(extension) == name


def test_every_name_means_one_format() -> None:
    """No extension, brand or first bytes are in two rows: the second row would win or lose in silence."""
    rows = FORMATS.values()
    for names in (
        [name for row in rows for name in (row.name, *row.aliases)],
        [brand for row in rows for brand in row.brands],
        [magic for row in rows for magic in row.magic],
    ):
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", ["jpg", "svg", "html", None])
def test_a_raw_file_is_bytes_whatever_it_says(name: str | None) -> None:
    assert media_type(MediaFacts(ResourceType.RAW, name)) == BINARY == "application/octet-stream"


@pytest.mark.parametrize("name", ["psd", "", None])
def test_an_unknown_format_is_bytes(name: str | None) -> None:
    assert media_type(MediaFacts(ResourceType.IMAGE, name)) == BINARY


@pytest.mark.parametrize(("name", "type_"), [("svg", "image/svg+xml"), ("pdf", "application/pdf")])
def test_what_can_hold_script_is_a_download_and_bytes_in_a_bucket(name: str, type_: str) -> None:
    facts = MediaFacts(ResourceType.IMAGE, name)
    assert (media_type(facts), is_download(facts), stored_type(facts)) == (type_, True, BINARY)


@pytest.mark.parametrize(
    ("name", "type_"), [("bmp", "image/bmp"), ("ico", "image/vnd.microsoft.icon"), ("png", "image/png")]
)
def test_pictures_without_script_are_shown(name: str, type_: str) -> None:
    facts = MediaFacts(ResourceType.IMAGE, name)
    assert (media_type(facts), is_download(facts), stored_type(facts)) == (type_, False, type_)


def test_raw_files_are_downloads() -> None:
    assert is_download(MediaFacts(ResourceType.RAW))
