"""Azurite: Microsoft's emulator of Azure's blob storage, from npm."""

import base64
import email.utils
import fcntl
import functools
import hmac
import itertools
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.stores.service import Service

HERE = Path(__file__).parent / "azurite"
CONTAINER = "media"
_ACCOUNT = "devstoreaccount1"  # it and its key are the same in every Azurite
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_API = "2021-08-06"
_NUMBERS = itertools.count()


class Azurite(Service):
    """`environment` is how a server gets to it."""

    def __init__(self) -> None:
        super().__init__("azurite", 1)
        self.endpoint = f"http://127.0.0.1:{self.ports[0]}/{_ACCOUNT}"
        self.environment = {
            "AZURE_STORAGE_ENDPOINT": self.endpoint,
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
        }

    def run(self) -> None:
        node = shutil.which("node")
        if node is None or shutil.which("npm") is None:
            pytest.skip("ABSENT: node and npm are not installed")
        script = _installed() / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
        where = ["--blobHost", "127.0.0.1", "--blobPort", str(self.ports[0]), "--location", str(self.folder)]
        options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        self.start([node, str(script), *where, *options], self._make_container)

    def fresh_url(self) -> str:
        return f"az://{CONTAINER}/set/{next(_NUMBERS)}"

    def _make_container(self) -> bool:
        date = email.utils.formatdate(usegmt=True)
        resource = f"/{_ACCOUNT}/{_ACCOUNT}/{CONTAINER}"
        lines = ["PUT", *([""] * 11), f"x-ms-date:{date}", f"x-ms-version:{_API}", resource, "restype:container"]
        signature = base64.b64encode(hmac.digest(base64.b64decode(_KEY), "\n".join(lines).encode(), "sha256")).decode()
        headers = {
            "x-ms-date": date,
            "x-ms-version": _API,
            "Authorization": f"SharedKey {_ACCOUNT}:{signature}",
            "Content-Length": "0",
        }
        url = f"{self.endpoint}/{CONTAINER}?restype=container"
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT", headers=headers), timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code == 409  # there already
        return True


def _installed() -> Path:
    """The folder with the locked packages: installed once, however many tests run at a time."""
    lock_file, installed = HERE / "package-lock.json", HERE / "node_modules" / ".installed"
    with lock_file.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        locked = lock.read()
        if not installed.exists() or installed.read_text() != locked:
            subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=HERE, check=True, timeout=600, capture_output=True)
            installed.write_text(locked)
    return HERE


@functools.cache
def shared() -> Azurite:
    """For all tests of this process that leave it alive."""
    server = Azurite()
    server.run()
    return server
