"""HTTP only: parse the request, call one use case, return its answer."""
