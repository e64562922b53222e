"""Files that are arriving, on the local disk of the server. A store takes them when they are complete."""
