"""A server whose settings all have the greatest value that uponce accepts."""

import base64
import re
from pathlib import Path

import pytest

from tests import samples
from tests.server import Server, asked
from uponce.config import effective, load
from uponce.core.errors import SettingRefused

pytestmark = pytest.mark.xdist_group("serve")

# Of the machine and of a bucket.
_OTHERS = {"UPONCE_PORT", "UPONCE_WORKERS", "UPONCE_DECODERS", "UPONCE_STORAGE_REDIRECT"}


def greatest(name: str) -> str:
    with pytest.raises(SettingRefused) as refused:
        load({name: str(2**63 - 1)})
    found = re.search(r"it must be \d+ to (\d+)\.$", refused.value.message)
    assert found is not None
    return found[1]


def test_the_greatest_values_serve_uploads(tmp_path: Path) -> None:
    """In a form, in memory and not, through a decoder, and in several requests."""
    numbers = [row["name"] for row in effective({}) if isinstance(row["value"], int)]
    environment = {name: greatest(name) for name in numbers if name not in _OTHERS}
    with Server(tmp_path / "data", env=environment | {"UPONCE_DECODERS": "1"}) as server:
        film = samples.subtitled("matroska", "subrip")
        files = [b"bytes", b"x" * 400_000, samples.png(1), samples.tiff(2), film]
        answers = [server.post(server.signed({"nonce": str(n)}), file) for n, file in enumerate(files)]
        assert [answer.status for answer in answers] == [200] * 5, server.output
        late = server.post(server.signed({"nonce": "late"}), b"bytes", file_first=True)
        assert late.status == 200, server.output
        words = (f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in server.signed().items())
        head = {"Tus-Resumable": "1.0.0", "Upload-Length": "10", "Upload-Metadata": ",".join(words)}
        made = asked("POST", f"{server.base}/tus/{server.cloud}/", headers=head)
        assert made.status == 201, (made.data, server.output)
        head = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        sent = asked("PATCH", made.headers["location"], body=bytes(10), headers=head)
        assert sent.status == 204, (sent.data, server.output)
        assert "ERROR" not in server.output
