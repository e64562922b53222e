"""Known flaws of decoders: which releases have one, and how doctor names it."""

from pathlib import Path

import pytest

from uponce.adapters import versions
from uponce.adapters.versions import known_flaws
from uponce.app.diagnose import Flaw
from uponce.cli.doctor import examine

MADE_UP = Flaw("FFmpeg", "7.1", "7.1.3", "CVE-1999-0001", "a made-up film ends the decoder", "av")


@pytest.mark.parametrize(
    ("version", "flawed"),
    [
        ("7.1", True),
        ("7.1.0", True),
        ("7.1.2", True),
        ("n7.1.2", True),
        ("7.1.2-0+deb13u1", True),
        ("7.0.9", False),
        ("6.99", False),
        ("7.1.3", False),
        ("7.1.10", False),
        ("7.10", False),
        ("10.0", False),
        ("N-120000-g0123abcdef", False),
        ("", False),
    ],
)
def test_releases_in_the_range_have_the_flaw(monkeypatch: pytest.MonkeyPatch, version: str, flawed: bool) -> None:
    monkeypatch.setattr(versions, "FLAWS", (MADE_UP,))
    assert list(known_flaws({"FFmpeg": version, "libvips": "7.1.1"})) == [MADE_UP] * flawed


@pytest.mark.parametrize(
    ("project", "version", "found"),
    [
        ("libvips", "8.17.3", {"CVE-2026-69242"}),
        ("libvips", "8.18.2", {"CVE-2026-69242"}),
        ("libvips", "8.18.3", set()),
        ("FFmpeg", "8.0.1", {"CVE-2026-40962"}),
        ("FFmpeg", "8.1", set()),
    ],
)
def test_the_flaws_of_real_releases(project: str, version: str, found: set[str]) -> None:
    assert {flaw.cve for flaw in known_flaws({project: version})} == found


def test_doctor_names_the_flaw_and_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("uponce.cli.doctor.versions", lambda: {"FFmpeg": "7.1.2"})
    monkeypatch.setattr(versions, "FLAWS", (MADE_UP,))
    [found, _] = [finding for finding in examine(str(tmp_path)) if finding.name == "decoders"]
    assert found.state == "warning"
    assert found.detail == (
        "FFmpeg 7.1.2 has CVE-1999-0001: a made-up film ends the decoder. Release 7.1.3 fixes it. "
        "Run pip install -U av, and restart every server."
    )
