"""Where blobs are kept: a folder with packs and files, or a bucket."""
