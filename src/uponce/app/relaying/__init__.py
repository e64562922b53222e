"""Uploads of a cloud that has an upstream: checked and spent here, stored there."""
