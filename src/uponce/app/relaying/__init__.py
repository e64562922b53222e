"""Uploads of a cloud that has an upstream. uponce checks and spends them; the upstream stores them."""
