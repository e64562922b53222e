"""Real object stores that the suite starts itself: SeaweedFS speaks S3, Azurite Azure's protocol."""
