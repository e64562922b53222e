"""The use cases, one idea per file. They know core and the ports, and nothing that does I/O."""
