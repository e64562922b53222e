"""The time and the random numbers of the system."""

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
        # One number takes one system call. A choice for each letter takes fifty, and each call lets other threads in.
        number, letters = secrets.randbelow(36**length), []
        for _ in range(length):
            number, digit = divmod(number, 36)
            letters.append(_BASE36[digit])
        return "".join(letters)

    def dated_hex(self) -> str:
        """Return a UUID of version 7 without its hyphens (RFC 9562, 5.7)."""
        milliseconds, chance = time.time_ns() // 1_000_000, secrets.randbits(74)
        high, low = divmod(chance, 1 << 62)
        return f"{milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low:032x}"
