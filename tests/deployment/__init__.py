"""The reference deployment, by processes on this machine: uponce servers, PostgreSQL, an S3 store, Caddy in front.

`Caddy` and `Nginx` run the shipped files in front of any servers.
"""

import getpass
import re
import secrets
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.postgres import Postgres
from tests.scrape import TOKEN
from tests.server import Server
from tests.stores.seaweedfs import SeaweedFS
from tests.stores.service import Service

DEPLOY = Path(__file__).parents[2] / "deploy"
CADDYFILE = DEPLOY / "Caddyfile"
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
# More than Caddy needs to see it: the interval between two of its looks, and what one may take on a busy machine.
DRAIN_SECONDS = 15


class Caddy(Service):
    """With the Caddyfile that is shipped, except that it logs more: also each request that no server answered."""

    def __init__(self) -> None:
        super().__init__("caddy", 1)
        self.url = f"http://127.0.0.1:{self.ports[0]}"

    def run(self, servers: list[Server]) -> None:
        caddy = shutil.which("caddy")
        assert caddy is not None, "ABSENT: caddy is not installed"
        environment = {
            "UPONCE_SITE": self.url,
            "UPONCE_SERVERS": " ".join(f"127.0.0.1:{server.port}" for server in servers),
            "UPONCE_HEALTH_INTERVAL": "500ms",
            "CADDY_ADMIN": "off",
            "HOME": str(self.folder),
        }
        site = _replaced(CADDYFILE.read_text(), {"\tlog {\n": "\tlog {\n\t\tlevel DEBUG\n"})
        (self.folder / "Caddyfile").write_text(site)
        arguments = ["run", "--config", f"{self.folder}/Caddyfile", "--adapter", "caddyfile"]
        named = [f"{name}={value}" for name, value in environment.items()]
        self.start(["/usr/bin/env", *named, caddy, *arguments], self._serves)

    def _serves(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)


class Nginx(Service):
    """With the site file that is shipped. Its workers run as the user of this process, which may read the media."""

    def __init__(self) -> None:
        super().__init__("nginx", 1)
        self.url = f"http://127.0.0.1:{self.ports[0]}"

    def run(self, servers: Sequence[Server], *, also: str = "", in_location: str = "", limit: int = 200) -> None:
        """`also` are directives of the http block; `in_location` of the location that goes to uponce.

        `limit` is the bound of requests of one address.
        """
        assert NGINX is not None, "ABSENT: nginx is not installed"
        (server_line,) = re.findall(r"^\tserver 127.0.0.1:8000 .*;$", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE)
        lines = [server_line.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}") for server in servers]
        site = _replaced(
            (DEPLOY / "nginx.conf").read_text(),
            {
                server_line: "\n".join(lines),
                "listen 80": f"listen 127.0.0.1:{self.ports[0]}",
                "\tlisten [::]:80;": "\t",
                "/var/lib/uponce": str(servers[0].data_dir),
                "/var/log/nginx/uponce.log": f"{self.folder}/access.log",
                "location / {": f"location / {{ {in_location}",
                "limit_conn uponce_addresses 200;": f"limit_conn uponce_addresses {limit};",
            },
        )
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {self.folder}/{kind};\n" for kind in kinds)
        (self.folder / "nginx.conf").write_text(
            f"user {getpass.getuser()};\ndaemon off;\npid {self.folder}/pid;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{places}{also}{site}}}\n"
        )
        self.start([NGINX, "-c", f"{self.folder}/nginx.conf", "-e", f"{self.folder}/error.log"], self._serves)

    def _serves(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)

    def stop(self) -> None:
        if self._process is not None:  # a killed master would leave its workers behind
            self._process.terminate()
            self._process.wait(60)
        super().stop()


def _replaced(text: str, names: dict[str, str]) -> str:
    for theirs, ours in names.items():
        assert theirs in text, theirs
        text = text.replace(theirs, ours)
    return text


class Deployment:
    """Leaving the context ends all of it. `front` is a server as clients see it, whichever one they reach."""

    def __init__(self, servers: int = 2) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="uponce-deployment-"))
        self.postgres = Postgres()
        self.store = SeaweedFS()
        self.caddy = Caddy()
        self.settings = {
            "UPONCE_DATABASE": self.postgres.url(),
            "UPONCE_STORAGE": self.store.fresh_url(),
            "UPONCE_SECRET_KEY": secrets.token_hex(32),
            "UPONCE_DRAIN_SECONDS": str(DRAIN_SECONDS),
            "UPONCE_DATABASE_SECONDS": "10",
            "UPONCE_STORAGE_SECONDS": "10",
            "UPONCE_LOG_LEVEL": "info",
            "UPONCE_METRICS_TOKEN": TOKEN,
            **self.store.environment,
        }
        self.servers = [self._server(f"server-{number}") for number in range(servers)]
        self.front = Server(self.folder / "front")
        self._stack = ExitStack()

    def _server(self, name: str) -> Server:
        return Server(self.folder / name, env={**self.settings, "UPONCE_INSTANCE": name})

    def __enter__(self) -> "Deployment":
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            stack.callback(self.postgres.stop)
            self.postgres.start()
            stack.callback(self.store.stop)
            self.store.run()
            for server in self.servers:
                stack.enter_context(server)
            stack.callback(self.caddy.stop)
            self.caddy.run(self.servers)
            first = self.servers[0]
            self.front.base, self.front.cloud, self.front.browser = self.caddy.url, first.cloud, first.browser
            stack.callback(self.front.__exit__)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def restart_one_after_the_other(self) -> None:
        for server in self.servers:
            server.stop()
            server.start()
