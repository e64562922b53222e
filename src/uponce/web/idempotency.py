"""The Idempotency-Key header (IETF draft of that name): by it a client may ask for a lost answer again."""

import re

from uponce.core.errors import MalformedRequest

MAX_LENGTH = 255

_VISIBLE = re.compile(r"[!-~]+")
# A structured field's string (RFC 9651 §3.3.3), where only two characters are escaped; or, as many clients send it, no
# quotes and nothing of which a string, a list or a parameter could be made.
_FORMS = re.compile(r'"(?P<quoted>(?:[^"\\]|\\["\\])*)"|(?P<bare>[^",;\\]+)')


def read_idempotency_key(header: str | None) -> str | None:
    """The key, 1 to 255 visible ASCII characters; `"abc"` and `abc` are one key. None when there is no header."""
    if header is None:
        return None
    form = _FORMS.fullmatch(header)
    key = re.sub(r"\\(.)", r"\1", form["quoted"] or form["bare"] or "") if form else ""
    if not _VISIBLE.fullmatch(key) or len(key) > MAX_LENGTH:
        raise MalformedRequest(
            f"Header Idempotency-Key must be 1 to {MAX_LENGTH} visible ASCII characters, in double quotes or without "
            f'any of , ; " \\, and this one has {len(header)} characters. Send a UUID.'
        )
    return key
