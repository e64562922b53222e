"""The Keys port: API keys, and the upstreams of clouds."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from uponce.core.values import ApiKey, Upstream


class Keys(Protocol):
    """API keys and their secrets."""

    async def find_key(self, api_key: str) -> ApiKey | None:
        """Return the key, also a revoked one, without rotated secrets that have expired."""

    async def list_keys(self, cloud: str | None = None) -> Sequence[ApiKey]:
        """Oldest first."""

    async def unreadable_keys(self) -> Mapping[str, str]:
        """The API keys whose secret cannot be decrypted, oldest first, each with the reason and the cure."""

    async def add_key(self, key: ApiKey) -> None:
        """Store a key. The first key of a database also makes the secret key; a later one may raise SettingRefused."""

    async def revoke_key(self, api_key: str) -> ApiKey | None:
        """Revoked from now on; None when there is no such key. Repeating it changes nothing."""

    async def rotate_key(self, api_key: str, secret: str, overlap: int) -> ApiKey | None:
        """A new secret; the present one works for `overlap` more seconds. None if there is no such key.

        With an overlap of 0 the present secret need not be readable.
        """

    async def set_upstream(self, cloud: str, upstream: Upstream | None) -> None:
        """From now on uploads of this cloud are passed on there; None: they are stored here again."""

    async def list_upstreams(self) -> Mapping[str, Upstream]:
        """By cloud."""
