"""What a file is: its type by its bytes, and its facts from a decoder in a sandboxed process."""
