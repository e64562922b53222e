"""Uploads whose bodies arrive at once, while a line to the database breaks: they take their steps in groups."""

from proof.faults.broken_line import Overwrite, Race, Repeatable, Upload


class Gathered(Upload):
    """an upload in a group"""

    def act(self) -> None:
        """Send a body that arrives at once, so that it takes its steps in a group."""
        self.stage.world.whole_bodies = True
        try:
            super().act()
        finally:
            self.stage.world.whole_bodies = False


class GatheredOverwrite(Gathered, Overwrite):
    """an overwrite in a group"""


class GatheredRepeatable(Gathered, Repeatable):
    """an upload with an Idempotency-Key in a group"""


class GatheredRace(Gathered, Race):
    """two uploads with one signature in a group"""


GATHERED: tuple[type[Upload], ...] = (Gathered, GatheredOverwrite, GatheredRepeatable, GatheredRace)
