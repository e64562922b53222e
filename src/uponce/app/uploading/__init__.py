"""Uploads that have arrived in memory, from the request to the answer."""
