"""Settings of the property tests: no deadline for one example, since machines that share a core stall."""

from hypothesis import settings

settings.register_profile("uponce", deadline=None)
settings.load_profile("uponce")
