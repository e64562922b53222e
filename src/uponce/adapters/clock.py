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
        # One number, one system call. A choice for each letter made fifty an upload, and each lets other threads in.
        number, letters = secrets.randbelow(36**length), []
        for _ in range(length):
            number, digit = divmod(number, 36)
            letters.append(_BASE36[digit])
        return "".join(letters)
