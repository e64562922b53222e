"""A relay behind the shipped Caddyfile and nginx site file: each signature stores one asset in the account."""

import hashlib
import shutil
from collections.abc import Iterator

import pytest

from tests.deployment import NGINX, Caddy, Nginx
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("deployment")]

INSTALLED = {"caddy": shutil.which("caddy"), "nginx": NGINX}
# In memory, while it arrives, and in chunks of which the first one leaves while it arrives.
SIZES = (10_000, 700_000, 12_000_000)


@pytest.fixture(scope="module", params=["caddy", "nginx"])
def relay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The relay, whose address is that of the front server."""
    if INSTALLED[request.param] is None:
        pytest.skip(f"ABSENT: {request.param} is not installed")
    folder, program = tmp_path_factory.mktemp("relay"), Caddy() if request.param == "caddy" else Nginx()
    with Server(folder / "account") as account:
        key = account.server
        settings = {
            "UPONCE_RELAY": f"cloudinary://{key.key}:{key.secret}@{account.cloud}?upload_prefix={account.base}",
            "UPONCE_RELAY_WHOLE_BYTES": "1000000",
            "UPONCE_RELAY_CHUNK_BYTES": "5242880",
            "UPONCE_TRUSTED_PROXIES": "127.0.0.1",
        }
        with Server(folder / "relay", env=settings) as relay:
            try:
                program.run([relay])
                relay.base = program.url
                yield relay
            finally:
                program.stop()


@pytest.mark.parametrize("size", SIZES, ids=["in memory", "as it arrives", "in chunks"])
def test_a_relay_behind_a_front_server_stores_once(relay: Server, size: int) -> None:
    file, fields = bytes(range(256)) * (size // 256), relay.signed({"public_id": f"file-{size}"})
    answer = relay.post(fields, file, resource_type="raw")
    assert answer.status == 200, answer.data
    assert answer.json()["etag"] == hashlib.md5(file).hexdigest()
    assert relay.get(answer.json()["url"]).data == file
    again = relay.post(fields, b"another file", resource_type="raw")
    assert (again.status, again.json()["error"]["code"]) == (400, "signature_used")
    assert relay.get(answer.json()["url"]).data == file
