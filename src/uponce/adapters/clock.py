"""The time and chance of the real world."""

import secrets
import string
import time

_BASE36 = string.digits + string.ascii_lowercase


class SystemClock:
    def now(self) -> float:
        return time.time()


class RandomIds:
    def hex(self, length: int) -> str:
        return secrets.token_hex((length + 1) // 2)[:length]

    def base36(self, length: int) -> str:
        return "".join(secrets.choice(_BASE36) for _ in range(length))
