"""Uploads without an end, while something happens to their server."""

import itertools
import threading

from tests.server import Server


class Traffic:
    """In threads: new assets, and one that is overwritten again and again.

    `made` is what each name was given by an upload that was answered 200, in order, and `spent` the fields of those;
    `refused` are the codes of the others.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.made: dict[str, list[bytes]] = {}
        self.spent: list[dict[str, str]] = []
        self.refused: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in ("one", "two", "again")]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str) -> None:
        for number in itertools.count():
            if self._stop.is_set():
                return
            public_id = name if name == "again" else f"{name}-{number}"
            data = f"{name} {number}".encode() * 500
            fields = self.server.signed({"public_id": public_id, "nonce": f"{name}{number}"})
            answer = self.server.post(fields, data, resource_type="raw")
            if answer.status != 200:
                self.refused.append(answer.json()["error"]["code"])
                continue
            self.made.setdefault(public_id, []).append(data)
            self.spent.append(fields)
