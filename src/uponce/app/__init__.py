"""The use cases, one verb per file. They know core and the ports, and nothing that does I/O."""
