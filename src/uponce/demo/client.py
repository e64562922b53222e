"""The two parties on the other side of the wire: the browser that posts, and its backend that signs and revokes."""

import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3
from urllib3.filepost import encode_multipart_formdata

from uponce.core.account import Account
from uponce.demo import sdk

Fields = Mapping[str, str]

_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Media:
    filename: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: Mapping[str, Any]

    @property
    def code(self) -> str:
        return str(self.body.get("error", {}).get("code", ""))

    @property
    def message(self) -> str:
        return str(self.body.get("error", {}).get("message", ""))


class Client:
    """Sends requests to the server at `url` with one API key. Many threads may use it. Close it."""

    def __init__(self, url: str, key: Account) -> None:
        self._url = url
        self._key = key
        self._pool = urllib3.PoolManager(maxsize=32, retries=False, timeout=_SECONDS)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Close the kept connections; the next request opens new ones."""
        self._pool.clear()

    def sign(self, public_id: str, timestamp: int | None = None) -> Fields:
        """Return the form fields of one upload, signed offline with the SDK at `timestamp`, by default now."""
        signed = {"public_id": public_id, "timestamp": str(int(time.time()) if timestamp is None else timestamp)}
        return signed | {"api_key": self._key.api_key, "signature": sdk.sign(signed, self._key.secret)}

    def post(self, fields: Fields, media: Media) -> Reply:
        """Post the form as a browser does, and return the answer."""
        body, content_type = _form(fields, media)
        return self._request("POST", "auto/upload", body, {"Content-Type": content_type})

    def begin(self, fields: Fields, media: Media) -> socket.socket:
        """Send the first half of `post`, and return the socket. Closing it tears the upload."""
        body, content_type = _form(fields, media)
        address = urlsplit(self._url)
        assert address.hostname and address.port
        head = (
            f"POST /v1_1/{self._key.cloud}/auto/upload HTTP/1.1\r\nHost: {address.netloc}\r\n"
            f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection = socket.create_connection((address.hostname, address.port), _SECONDS)
        connection.sendall(head.encode() + body[: len(body) // 2])
        return connection

    def status(self, fields: Fields) -> str:
        """Return the status of a signature: unused, used, revoked."""
        return str(self._manage("status", fields).body.get("status", ""))

    def revoke(self, fields: Fields) -> Reply:
        return self._manage("revoke", fields)

    def fetch(self, url: str) -> bytes:
        """Return the bytes at the URL, or no bytes if the answer is not 200."""
        response = self._pool.request("GET", url)
        return response.data if response.status == 200 else b""

    def fetch_resource(self, url: str, key: Account, public_id: str) -> int:
        """Return the status of the answer of another server's Admin API about an image."""
        credentials = urllib3.make_headers(basic_auth=f"{key.api_key}:{key.secret}")
        path = f"/v1_1/{key.cloud}/resources/image/upload/{public_id}"
        return self._pool.request("GET", url + path, headers=credentials).status

    def _manage(self, action: str, fields: Fields) -> Reply:
        credentials = urllib3.make_headers(basic_auth=f"{self._key.api_key}:{self._key.secret}")
        headers = {**credentials, "Content-Type": "application/json"}
        return self._request("POST", f"signatures/{action}", json.dumps(fields).encode(), headers)

    def _request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        url = f"{self._url}/v1_1/{self._key.cloud}/{path}"
        response = self._pool.request(method, url, body=body, headers=headers)
        return Reply(response.status, json.loads(response.data))


def _form(fields: Fields, media: Media) -> tuple[bytes, str]:
    return encode_multipart_formdata({**fields, "file": (media.filename, media.data)})
