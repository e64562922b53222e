"""The stores of blobs: a folder with packs and files, or a bucket."""
