"""The campaigns, a module each: `run(seconds, seed) -> Report`."""
