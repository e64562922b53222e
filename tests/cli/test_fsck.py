"""Which settings `uponce fsck` judges by: those of its shell, and those that a server noted."""

import asyncio
from contextlib import closing
from pathlib import Path

from tests.world import World, assert_accepted
from uponce.cli.fsck import examine
from uponce.config import load


def test_audit_rows_that_the_server_keeps_for_a_shorter_time_are_no_fault(tmp_path: Path) -> None:
    """Nor does a server that keeps the audit for longer make damage of what this shell does not expect."""
    settings = load({})
    with closing(World(tmp_path)) as world:

        def without_audit() -> int:
            report = asyncio.run(examine(world.services, settings, 0, deep=False))
            return sum(count for kind, count in report.counts.items() if kind.name == "unaudited")

        assert_accepted(world.upload(world.sign()))
        world.sql("DELETE FROM audit")
        assert without_audit() == 1
        asyncio.run(world.database.note_settings({"audit_days": "0"}))
        world.clock.time += 3601  # a grant may be spent an hour before its timestamp
        assert without_audit() == 0
        asyncio.run(world.database.note_settings({"audit_days": str(settings.audit_days + 10)}))
        world.clock.time += settings.audit_days * 86400
        assert without_audit() == 0
