"""The use cases, one idea per file. They use core and the ports, and no module that does I/O."""
