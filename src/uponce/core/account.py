"""`cloudinary://KEY:SECRET@CLOUD?…`: how one line names an API key, its cloud and the server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_PLAIN = ":/[]@!$'()*,;=?~"  # in a query these stand for themselves, unlike `%`, `+`, `&` and `#`


@dataclass(frozen=True, slots=True)
class Account:
    """The parts of such a URL. `options` are the parameters of its query."""

    api_key: str
    secret: str = field(repr=False)
    cloud: str
    options: Mapping[str, str]

    @property
    def base(self) -> str:
        """Return the server's address without a slash at its end. It is empty if the URL has no `upload_prefix`."""
        return self.options.get("upload_prefix", "").rstrip("/")


def read_account(url: str, secret: str | None = None) -> Account:
    """Return the parts of the URL. If it has an option twice, the last one counts. `secret` is for a URL without one.

    Raise ValueError for a URL of another form. The text says what is wrong and never repeats the secret.
    """
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise ValueError("it cannot be read") from None
    cloud = parts.netloc.rpartition("@")[2]  # `hostname` would lower its case
    if parts.scheme != "cloudinary" or not parts.username or not cloud or parts.path.strip("/"):
        raise ValueError("it has another form")
    if not parts.password and secret is None:
        raise ValueError("it has no secret")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Account(unquote(parts.username), unquote(parts.password or "") if secret is None else secret, cloud, options)


def account_url(api_key: str, secret: str, cloud: str, **options: str) -> str:
    """Return the URL that `read_account` reads. An empty secret is omitted."""
    owner = ":".join(quote(text, safe="") for text in (api_key, secret) if text)
    query = "&".join(f"{name}={quote(value, safe=_PLAIN)}" for name, value in options.items())
    return f"cloudinary://{owner}@{cloud}{'?' if query else ''}{query}"
