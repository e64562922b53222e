"""The BlobStore port, one module per back end."""
