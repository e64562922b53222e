"""A machine on which the commands of a guide run, without its systemd and without `uponce` on the PATH."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
_REMEMBERS = '#!/bin/sh\necho "$@" >> "$0.log"\n'
_OWN_PROGRAMS = Path(sys.executable).parent


class Machine:
    """`names` are names in a guide, and what they are here. The `stubs` do nothing; `asked` returns their calls."""

    def __init__(self, folder: Path, names: Mapping[str, str], stubs: Sequence[str] = ("systemctl",)) -> None:
        self.folder = folder
        self.names = {
            "/etc/uponce": str(folder / "uponce"),
            "/etc/systemd/system": str(folder / "units"),
            "/etc/caddy": str(folder / "caddy"),
            "/opt/uponce": str(folder / "program"),
            "/opt/uponce/bin": str(_OWN_PROGRAMS),
            "/opt/uponce/bin/pip": "pip",  # a stub: the uponce under test stays
            **names,
        }
        self.shell = ""  # commands that the reader has given to the shell before each block
        self.inside: Sequence[str] = ()  # the command that starts the shell
        self._programs = folder / "bin"
        for made in (self._programs, folder / "units", folder / "caddy"):
            made.mkdir()
        for stub in ("pip", *stubs):
            self.stub(stub)

    def stub(self, name: str, then: str = "") -> None:
        (self._programs / name).write_text(_REMEMBERS + then)
        (self._programs / name).chmod(0o755)

    def run(self, block: str, **environment: str) -> str:
        """Run a block of a guide, and return what it prints. Each of its commands must succeed."""
        done = self._bash("-euc", block, environment)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def paste(self, block: str) -> int:
        """Run a block as in a reader's shell, which goes on after a command that fails. Return the last exit code."""
        return self._bash("-c", block, {}).returncode

    def _bash(self, how: str, block: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        block = self.shell + block
        for name in sorted(self.names, key=len, reverse=True):  # a command before the folder in it
            block = block.replace(name, self.names[name])
        others = [place for place in os.environ["PATH"].split(":") if Path(place) != _OWN_PROGRAMS]
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("UPONCE_", "AWS_"))}
        return subprocess.run(
            [*self.inside, "bash", how, block],
            cwd=ROOT,
            env=plain | {"PATH": ":".join([str(self._programs), *others])} | dict(environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def asked(self, stub: str = "systemctl") -> list[str]:
        """Return the calls of a stub since the last time."""
        log = self._programs / f"{stub}.log"
        calls = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return calls

    def settings(self, file: str = "uponce.env") -> dict[str, str]:
        """As systemd reads them: of two lines with one name, the later one counts."""
        return dict(re.findall(r"^(\w+)='(.*)'$", (self.folder / file).read_text(), re.MULTILINE))

    def given_to_caddy(self) -> str:
        """Return the variables that the drop-in gives to Caddy, as words for a shell."""
        dropin = (self.folder / "units/caddy.service.d/uponce.conf").read_text()
        (words,) = re.findall(r"^Environment=(.*)$", dropin, re.MULTILINE)
        return str(words)


def blocks(guide: str, language: str = "sh") -> list[str]:
    """Return the blocks of a guide in one language, in their order."""
    text = (ROOT / "docs/guide" / guide).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
