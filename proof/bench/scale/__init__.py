"""What a database of many rows does as fast as an empty one, measured at the port that the server uses."""
