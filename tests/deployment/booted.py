"""A copy of this machine with its own systemd, in which a guide's commands run as they are written.

systemd-nspawn boots an overlay of `/`: the programs are this machine's, and all that is written ends with the copy.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from tests.deployment.machine import ROOT

SOURCES = "/root/uponce"  # the folder in which the reader of the guide is
_BOOT_SECONDS = 60
_BOOTED = ("running", "degraded")  # a service of this machine that does not start in a container is no matter
# On control groups of the first version, as in many containers, systemd boots only if it is asked to.
_OLD_GROUPS = {"SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE": "1"}


def absent() -> str:
    """Return what this machine lacks, or nothing."""
    if shutil.which("systemd-nspawn") is None:
        return "ABSENT: systemd-nspawn is not installed (package systemd-container)"
    if os.geteuid() != 0:
        return "ABSENT: only root can boot a container"
    return ""


class Booted:
    """`run` gives a block of a guide to a shell of root. `names` are names in it, and what they are here.

    Until `boot`, commands run beside this machine's and reach its network. After that they have systemd and no network.
    """

    def __init__(self, folder: Path) -> None:
        self.names: dict[str, str] = {}
        self.shell = ""  # commands that the reader has given to the shell before each block
        self._folder = folder
        self._root = folder / "root"
        self._console = folder / "console"
        self._container: subprocess.Popen[bytes] | None = None
        self._enter = ["chroot", str(self._root)]
        folder.mkdir(exist_ok=True)
        # An overlay cannot write into another overlay. It can write into memory.
        _must("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))
        for made in ("above", "work", "root"):
            (folder / made).mkdir()
        layers = f"lowerdir=/,upperdir={folder}/above,workdir={folder}/work"
        _must("mount", "-t", "overlay", "-o", layers, "overlay", str(self._root))
        (self._root / "etc/machine-id").write_text(f"{uuid4().hex}\n")
        # No network will come. Units that want it must not wait for it.
        (self._root / "etc/systemd/system/systemd-networkd-wait-online.service").symlink_to("/dev/null")
        for mounted in ("dev", "proc"):
            _must("mount", "--rbind", f"/{mounted}", str(self._root / mounted))
        # A folder that systemd may map to other users (an overlay cannot be), as /var/lib is on real disks.
        _must("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(self._root / "var/lib"))
        for front in ("caddy", "nginx"):
            _must("cp", "--archive", f"/var/lib/{front}", str(self._root / "var/lib"))
        self._copy_sources()

    def _copy_sources(self) -> None:
        listed = subprocess.check_output(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT)
        target = self._root / SOURCES[1:]
        target.mkdir(parents=True)
        _must("xargs", "-0", "cp", "--parents", "-t", str(target), cwd=ROOT, given=listed)

    def boot(self) -> None:
        for mounted in ("dev", "proc"):
            _must("umount", "--recursive", "--lazy", str(self._root / mounted))
        with self._console.open("wb") as console:
            self._container = subprocess.Popen(
                [
                    *("systemd-nspawn", "--directory", str(self._root), "--boot", "--register=no", "--keep-unit"),
                    *("--link-journal=no", "--private-network", "--console=pipe", f"--machine=uponce-{os.getpid()}"),
                    *(f"--setenv={name}={value}" for name, value in _OLD_GROUPS.items()),
                ],
                env=os.environ | _OLD_GROUPS,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _BOOT_SECONDS
        while not self._first_process() or self._shell("systemctl is-system-running").stdout.strip() not in _BOOTED:
            assert self._container.poll() is None and time.monotonic() < deadline, self.console()
            time.sleep(0.2)

    def _first_process(self) -> bool:
        """Find the systemd of the container: the child of systemd-nspawn."""
        assert self._container is not None
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children").read_text().split()
        if not children:
            return False
        self._enter = ["nsenter", "--target", children[0], "--all"]
        return True

    def console(self) -> str:
        return self._console.read_text(errors="replace")[-4000:]

    def run(self, block: str) -> str:
        """Run a block, and return what it prints. Each of its commands must succeed."""
        done = self._shell(self.shell + block)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def _shell(self, block: str) -> subprocess.CompletedProcess[str]:
        for name in sorted(self.names, key=len, reverse=True):
            block = block.replace(name, self.names[name])
        place = f"cd {SOURCES} || exit; {block}"
        return subprocess.run(
            [*self._enter, "/usr/bin/env", "-i", *_words(_ROOTS_SHELL), "bash", "-euc", place],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def stop(self) -> None:
        if self._container is not None:
            self._container.terminate()  # systemd-nspawn shuts the container down, and removes what it mounted
            try:
                self._container.wait(_BOOT_SECONDS)
            except subprocess.TimeoutExpired:
                self._container.kill()
                self._container.wait()
        subprocess.run(["umount", "--recursive", "--lazy", str(self._folder)], capture_output=True, check=False)


_ROOTS_SHELL = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def _words(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


def _must(*command: str, cwd: Path | None = None, given: bytes | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, input=given, capture_output=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
