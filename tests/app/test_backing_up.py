"""How a backup begins."""

import errno
from pathlib import Path

import pytest

from tests.app.test_backup import Box, box, files
from tests.world import START
from uponce.core.errors import SettingRefused

__all__ = ["box"]  # a fixture


def test_a_backup_is_dated_before_its_copy(box: Box) -> None:
    """Who restores it lists the deletions since. The copy lacks those that came while it was made, which takes long."""

    def an_hour_later(*_: object) -> None:
        box.world.clock.time += 3600

    assert box.back_up(an_hour_later).facts["made_at"] == START
    assert box.world.clock.time > START


def test_a_draft_that_cannot_be_deleted_stops_no_backup(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draft = box.folder / f"uponce.db.20260101T000000Z.{'0' * 16}"
    spooled = box.folder / "media" / "spool" / ("a" * 32)
    for path in (draft, spooled):
        path.write_bytes(b"half of it")
    unlink = Path.unlink

    def refuse(path: Path, **how: bool) -> None:
        if path in (draft, spooled):
            raise PermissionError(errno.EPERM, "held by another client")
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert box.back_up().media.lost == {}
    assert f"a file that an interrupted backup left in {box.folder} cannot be deleted" in caplog.text


def test_a_server_without_the_keys_of_the_last_backup_replaces_nothing(box: Box) -> None:
    """It has the assets: somebody has deleted the keys."""
    before = files(box.folder)
    box.world.sql("DELETE FROM api_keys")
    with pytest.raises(SettingRefused, match=rf"does not have its API keys .*{box.world.browser.api_key}.*restore the"):
        box.back_up()
    assert files(box.folder) - {box.folder / "uponce.db.new"} == before
