"""SeaweedFS: an S3 server from a wheel."""

import functools
import itertools
import json
import shutil
import sys
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.store import S3Store

from tests.stores.service import Service

BUCKET = "media"
_KEY, _SECRET = "suite", "suite-secret"
_NUMBERS = itertools.count()
_PORTS = {
    name: number
    for number, name in enumerate(
        "s3.port s3.port.grpc master.port master.port.grpc volume.port volume.port.grpc filer.port filer.port.grpc "
        "debug.port".split()
    )
}


class SeaweedFS(Service):
    """`environment` is how a server gets to it."""

    def __init__(self) -> None:
        super().__init__("weed", len(_PORTS))
        self.endpoint = f"http://127.0.0.1:{self.ports[0]}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_REGION": "us-east-1",
        }
        credentials = [{"accessKey": _KEY, "secretKey": _SECRET}]
        may = ["Admin", "Read", "Write", "List"]
        identities = {"identities": [{"name": "suite", "credentials": credentials, "actions": may}]}
        (self.folder / "s3.json").write_text(json.dumps(identities))
        (self.folder / "data").mkdir()

    def run(self) -> None:
        """Start, also again after `kill`."""
        weed = shutil.which("weed", path=str(Path(sys.executable).parent))
        assert weed is not None
        options = {name: self.ports[number] for name, number in _PORTS.items()} | {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "master.volumeSizeLimitMB": 1024,
            "volume.max": 200,
            "s3.config": self.folder / "s3.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
        }
        self.start([weed, "server", "-s3", *(f"-{name}={value}" for name, value in options.items())], self._make_bucket)
        obstore.put(self.store(), "first", b"makes volumes, which takes seconds where much else runs")
        obstore.delete(self.store(), "first")

    def fresh_url(self) -> str:
        """A new place in the bucket."""
        return f"s3://{BUCKET}/set/{next(_NUMBERS)}"

    def store(self, prefix: str | None = None) -> S3Store:
        """Past uponce, to look and to meddle."""
        return S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=self.endpoint,
            access_key_id=_KEY,
            secret_access_key=_SECRET,
            region="us-east-1",
            client_options={"allow_http": True},
        )

    def _make_bucket(self) -> bool:
        url = obstore.sign(self.store(), "PUT", "", timedelta(seconds=60))
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT"), timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code == 409  # there already
        return True


@functools.cache
def shared() -> SeaweedFS:
    """For all tests of this process that leave it alive."""
    server = SeaweedFS()
    server.run()
    return server
