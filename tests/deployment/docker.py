"""`docker` as a guide calls it. A volume is a folder, and a container is a process. All other words are refused.

What only Docker does is not tried: the image, its user, the network and the confinement.
"""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

HERE = Path(os.environ["FAKE_DOCKER"])
PID, LOG = HERE / "pid", HERE / "log"


def main(words: list[str]) -> int:
    match words:
        case ["build", "--file", file, "--tag", "uponce", "."]:
            return 0 if Path(file).exists() else 1
        case ["compose", "up", "--detach", "--wait"]:
            _stop()
            _start()
        case ["compose", "stop"]:
            _stop()
        case ["compose", "logs"]:
            print(LOG.read_text())
        case ["compose", "run", "--rm", "uponce", *command] if not PID.exists():
            return _run(command)
        case ["compose", "exec", "uponce", *command] | ["compose", "exec", "-T", "uponce", *command] if PID.exists():
            return _run(command)
        case _:
            print(f"docker: not here, or not now: {words}", file=sys.stderr)
            return 2
    return 0


def _service() -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load(Path("compose.yaml").read_text())["services"]["uponce"]
    return service


def _folders() -> dict[str, str]:
    """Return the folder that is mounted at each path of the container."""
    mounted = {path: volume for volume, path, *_ in (each.split(":") for each in _service()["volumes"])}
    folders = {path: volume if volume.startswith("/") else f"{HERE}/{volume}" for path, volume in mounted.items()}
    for folder in folders.values():
        Path(folder).mkdir(exist_ok=True)
    return folders


def _inside(command: list[str]) -> dict[str, Any]:
    """Return the arguments of a process that sees what the container sees."""
    folders, service = _folders(), _service()
    for path, folder in folders.items():
        command = [word.replace(path, folder) for word in command]
    address, port, _ = service["ports"][0].split(":")
    ours = {"UPONCE_DATA": folders["/var/lib/uponce"], "UPONCE_HOST": address, "UPONCE_PORT": port}
    return {"args": command, "env": os.environ | ours | service["environment"]}


def _run(command: list[str]) -> int:
    return subprocess.run(**_inside(command), check=False).returncode


def _start() -> None:
    with LOG.open("wb") as log:
        server = subprocess.Popen(**_inside(["uponce", "serve"]), stdout=log, stderr=log, start_new_session=True)
    PID.write_text(str(server.pid))
    while "listening on" not in LOG.read_text():
        if server.poll() is not None:
            raise SystemExit(LOG.read_text())
        time.sleep(0.05)


def _stop() -> None:
    """Wait for the server, which may be a zombie: its parent has gone."""
    if PID.exists():
        server = psutil.Process(int(PID.read_text()))
        server.terminate()
        with suppress(psutil.NoSuchProcess):  # it may go between the two questions
            while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
        PID.unlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
