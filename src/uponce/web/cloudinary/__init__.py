"""Cloudinary's Upload API and Admin API, as far as uponce has them."""
