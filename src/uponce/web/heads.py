"""Refusals of a request's head, before there is a request, and of a body's framing."""

from httptools import HttpParserError, HttpParserInvalidURLError

from uponce.web.errors import raw_refusal

MAX_PATH_BYTES = 16 * 1024  # uvicorn decodes a path in one step, which takes milliseconds
_MAX_ADDRESS_BYTES = 65_535  # httptools counts in 16 bits
_TOO_LONG = "414 URI Too Long"
_TOO_LARGE = "431 Request Header Fields Too Large"
_MALFORMED = raw_refusal("400 Bad Request", "The request is not valid HTTP/1.1. Send it with an HTTP library.")
_BAD_ADDRESS = raw_refusal(
    "400 Bad Request",
    "The request's address has a character that is not allowed there. Percent-encode it, as %C3%A9 for e acute.",
)


SMALL_CHUNKS = raw_refusal(
    "400 Bad Request", "More than a fifth of the body is the framing of its chunks. Send chunks of 24 bytes or more."
)


def refusal_of_connections(most: int) -> bytes:
    message = f"{most} connections of this address are in use, the limit. Close some, and try again."
    return raw_refusal("503 Service Unavailable\r\nretry-after: 5", message, "server_busy")


def refusal_of_slowness(seconds: int) -> bytes:
    message = f"The head did not arrive within {seconds} seconds. Send the request again."
    return raw_refusal("408 Request Timeout", message)


def refusal_of_size(most: int) -> bytes:
    return raw_refusal(_TOO_LARGE, f"The request's head is larger than {most} bytes. Send fewer or shorter headers.")


def refusal_of_number(most: int) -> bytes:
    return raw_refusal(_TOO_LARGE, f"The request has more than {most} headers. Send fewer headers.")


def refusal_of(error: HttpParserError) -> bytes:
    """Return the answer to a request that the parser cannot read."""
    has_bad_address = isinstance(error, HttpParserInvalidURLError) and str(error).startswith("Invalid char in")
    return _BAD_ADDRESS if has_bad_address else _MALFORMED


def refusal_of_address(address: bytes) -> bytes:
    """Return the answer to a request whose path, or path and query, are too long. Return nothing if they are not."""
    if (length := len(address.partition(b"?")[0])) > MAX_PATH_BYTES:
        return raw_refusal(
            _TOO_LONG, f"The request's path is {length} bytes long, the limit is {MAX_PATH_BYTES}. Shorten it."
        )
    if (length := len(address)) > _MAX_ADDRESS_BYTES:
        message = f"The request's address is {length} bytes long, the limit is {_MAX_ADDRESS_BYTES}. Shorten its query."
        return raw_refusal(_TOO_LONG, message)
    return b""
