"""What a file is served as: nothing that a browser would run."""

import pytest

from uponce.core.media_types import BINARY, MEDIA_TYPES, media_type
from uponce.core.policy import MEDIA_FORMATS
from uponce.core.values import MediaFacts, ResourceType


@pytest.mark.parametrize("name", sorted(MEDIA_FORMATS))
def test_media_are_served_as_what_they_are(name: str) -> None:
    assert media_type(MediaFacts(ResourceType.IMAGE, name)) == MEDIA_TYPES[name]
    assert MEDIA_TYPES[name].startswith(("image/", "video/", "audio/"))


@pytest.mark.parametrize("name", ["jpg", "svg", "html", None])
def test_a_raw_file_is_bytes_whatever_it_says(name: str | None) -> None:
    assert media_type(MediaFacts(ResourceType.RAW, name)) == BINARY == "application/octet-stream"


@pytest.mark.parametrize("name", ["svg", "", None])
def test_an_unknown_format_is_bytes(name: str | None) -> None:
    assert media_type(MediaFacts(ResourceType.IMAGE, name)) == BINARY
