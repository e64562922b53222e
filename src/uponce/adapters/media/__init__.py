"""What a file is: its type from the bytes, its facts from a decoder that runs in a sandboxed process."""
