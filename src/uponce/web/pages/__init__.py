"""What browsers load from this server: pages, and the files that pages use."""
