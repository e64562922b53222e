"""Pages for browsers, and the files that pages use."""
