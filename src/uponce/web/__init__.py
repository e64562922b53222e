"""HTTP only: parse the request, call one use case, print its answer."""
