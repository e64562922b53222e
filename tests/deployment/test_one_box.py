"""docs/guide/one-box.md: its commands are run, in order, except those that install a package or ask systemd."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from tests.deployment import Caddy
from tests.deployment.machine import DEPLOY, Machine, blocks
from tests.e2e.commands import as_json, code_of
from tests.server import Server
from tests.stores import seaweedfs

pytestmark = [
    pytest.mark.xdist_group("deployment"),
    pytest.mark.skipif(shutil.which("caddy") is None, reason="ABSENT: caddy is not installed"),
]

GUIDE = blocks("one-box.md")
INSTALL, SETTINGS, SERVICE, COMMANDS, FRONT, LOOK, CONNECTIONS, BACKUP, NEW_MACHINE, RESTORE, *OTHERS = GUIDE
AGAIN, KEEP, UPGRADE, CONTINUE, NGINX, DISK, RESTORE_DISK, TO_BUCKET, IN_BUCKET = OTHERS

# Between the two no boot starts a server.
DISABLED = "disable --now uponce uponce-backup.timer uponce-backup.service"
ENABLED = "enable --now uponce uponce-backup.timer"
LARGE = bytes(300_000)  # too large for packs


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "lib").mkdir()
    with Server(tmp_path / "lib" / "uponce") as server:
        yield server


@pytest.fixture
def machine(box: Server, tmp_path: Path) -> Iterator[Machine]:
    """The reader has opened a shell as step 3 says. No command may replace the uponce under test."""
    installed = distribution("uponce").read_text("RECORD")
    made = Machine(
        tmp_path,
        {
            "/etc/nginx": str(tmp_path / "nginx"),
            "/etc/fstab": str(tmp_path / "fstab"),
            "/var/lib/uponce": f"{tmp_path}/lib/uponce",
            "127.0.0.1:8000": f"127.0.0.1:{box.port}",
            "git pull\n": "",
        },
        ("systemctl", "chown", "mount", "nginx"),
    )
    (tmp_path / "uponce.env").touch()
    made.shell = COMMANDS.removesuffix("uponce doctor\n")
    yield made
    assert distribution("uponce").read_text("RECORD") == installed


def back_up(machine: Machine) -> None:
    """As the timer does, by the unit's own command."""
    (command,) = re.findall(r"^ExecStart=(.*)$", (DEPLOY / "uponce-backup.service").read_text(), re.MULTILINE)
    machine.run(command)


@pytest.mark.proof
def test_every_step_of_the_guide(machine: Machine, box: Server, tmp_path: Path) -> None:
    """Served, asked through Caddy, backed up, upgraded, and taken back after two nights. Then the backups go on."""
    caddy = Caddy()
    machine.names |= {"https://media.example": caddy.url, "UPONCE_SITE=media.example": f"UPONCE_SITE={caddy.url}"}
    spent = box.signed({"public_id": "cat", "nonce": "spent"})
    assert code_of(box, spent) == ""
    machine.run(SETTINGS)
    machine.run(SERVICE)
    assert f"sqlite:///{box.data_dir}/uponce.db" in machine.run("uponce doctor")
    machine.run(FRONT)
    validate = f"caddy validate --config {tmp_path}/caddy/Caddyfile --adapter caddyfile"
    machine.run(f"env {machine.given_to_caddy()} {validate}", HOME=str(tmp_path))
    caddy.run([box])
    try:
        assert '"status":"ok"' in machine.run(LOOK)
    finally:
        caddy.stop()
    machine.run(CONNECTIONS)
    assert "ct count over 200" in (tmp_path / "uponce-connections.nft").read_text()

    machine.run(BACKUP)
    back_up(machine)
    machine.run(AGAIN)
    machine.run(KEEP)
    machine.run(UPGRADE)
    machine.run("uponce keys create")
    for night in range(2):
        assert box.post(box.signed({"public_id": "cat", "nonce": night}), b"later" * 9).status == 200
        back_up(machine)
    assert box.stop() == 0
    machine.run(RESTORE.replace("/latest", "/before-upgrade"))
    assert (tmp_path / "lib/uponce.before/uponce.db").exists()
    box.start()
    assert box.get(f"/{box.cloud}/raw/upload/cat").data == b"bytes"
    assert code_of(box, spent) in ("signature_used", "stale_request")
    machine.run(CONTINUE)
    back_up(machine)
    assert machine.asked() == [
        "enable --now uponce",
        "daemon-reload",
        "enable caddy",
        "restart caddy",
        "daemon-reload",
        "restart caddy",
        "enable --now uponce-backup.timer",
        "restart uponce",
        "start uponce-backup",
        "daemon-reload",
        "restart uponce",
        DISABLED,
        ENABLED,
    ]
    assert machine.asked("pip") == ["install .", "install ."]


@pytest.mark.proof
def test_a_refused_restore_starts_no_server(machine: Machine, box: Server, tmp_path: Path) -> None:
    """An empty server would accept spent signatures again. Then the lines from `uponce restore` on do all."""
    back_up(machine)
    assert box.stop() == 0
    assert machine.paste(RESTORE.replace("/latest", "/lost")) == 1
    assert machine.asked() == [DISABLED]
    machine.run(RESTORE[RESTORE.index("uponce restore") :])
    assert machine.asked() == [ENABLED]
    assert (tmp_path / "lib/uponce/uponce.db").exists()


@pytest.mark.proof
def test_a_new_machine_starts_its_first_server_on_the_restored_folder(
    machine: Machine, box: Server, tmp_path: Path
) -> None:
    assert code_of(box, box.signed({"public_id": "cat"})) == ""
    back_up(machine)
    assert box.stop() == 0
    box.data_dir.rename(tmp_path / "lost")
    machine.run(NEW_MACHINE)
    assert {unit.name for unit in (tmp_path / "units").iterdir()} >= {"uponce.service", "uponce-backup.timer"}
    machine.run(RESTORE)
    assert machine.asked() == ["daemon-reload", DISABLED, ENABLED]
    box.start()
    assert box.get(f"/{box.cloud}/raw/upload/cat").data == b"bytes"


@pytest.mark.proof
def test_the_last_copy_stays_if_the_backup_before_an_upgrade_fails(machine: Machine, tmp_path: Path) -> None:
    back_up(machine)
    machine.run(KEEP)
    kept = tmp_path / "lib/uponce-backup/before-upgrade/uponce.db"
    kept.write_bytes(b"the last copy")
    machine.stub("systemctl", "exit 1\n")
    assert machine.paste(KEEP) == 1
    assert kept.read_bytes() == b"the last copy"


@pytest.mark.proof
def test_a_copy_without_links_replaces_what_the_copy_with_links_began(machine: Machine, tmp_path: Path) -> None:
    back_up(machine)
    (tmp_path / "lib/uponce-backup/before-upgrade/half").mkdir(parents=True)
    machine.run(KEEP.replace("cp -al", "cp -a"))
    names = {path.name for path in (tmp_path / "lib/uponce-backup/before-upgrade").iterdir()}
    assert names == {path.name for path in (tmp_path / "lib/uponce-backup/latest").iterdir()}


@pytest.mark.proof
def test_the_backups_continue_an_older_copy_without_links(machine: Machine, tmp_path: Path) -> None:
    """On a disk without hard links, the last line leaves folders without files."""
    back_up(machine)
    machine.run(KEEP)
    folder, move, copy = CONTINUE.splitlines()
    machine.run(f"{folder}\n{move}\n  mkdir latest")
    machine.run(f"{folder}\n{copy.replace('cp -al', 'cp -a')}")
    names = {path.name for path in (tmp_path / "lib/uponce-backup/before-upgrade").iterdir()}
    assert names == {path.name for path in (tmp_path / "lib/uponce-backup/latest").iterdir()}
    back_up(machine)


@pytest.mark.proof
def test_a_disk_that_is_not_mounted_gets_no_media(machine: Machine, box: Server) -> None:
    assert box.post(box.signed({"public_id": "small"}), b"in a pack").status == 200
    assert box.stop() == 0
    machine.stub("mount", "exit 32\n")
    assert machine.paste(DISK) == 32
    assert machine.asked() == ["stop uponce", "daemon-reload"]
    assert not list((box.data_dir / "media").iterdir())
    machine.stub("mount")
    assert "damage: 0" in machine.run(DISK[DISK.index("mount /var") :])


def test_a_shell_without_the_keys_of_the_bucket_moves_nothing(machine: Machine, box: Server, tmp_path: Path) -> None:
    assert box.stop() == 0
    assert machine.paste(IN_BUCKET) != 0
    assert (box.data_dir / "uponce.db").exists() and not (box.data_dir / "before").exists()
    assert ((tmp_path / "uponce.env").read_text(), machine.asked()) == ("", [])


def test_a_new_machine_gets_the_drop_ins_and_the_disks_of_the_lost_one() -> None:
    """Without them the backup reaches no bucket, or fills the disk of the system."""
    text = (DEPLOY.parent / "docs/guide/one-box.md").read_text()
    (before,) = re.findall(r"^## 6\. Restore\n(.*?)^```sh", text, re.MULTILINE | re.DOTALL)
    (backup,) = re.findall(r"^## 5\. Backup(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert "drop-ins back into `/etc/systemd/system`" in before and "`/etc/fstab`" in before
    assert "`/etc/systemd/system/uponce*.d`" in backup and "lines of `/etc/fstab`" in backup


def test_only_root_reads_the_settings(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "uponce.env").unlink()
    machine.shell = ""
    machine.run(SETTINGS)
    assert (tmp_path / "uponce.env").stat().st_mode & 0o777 == 0o600


def test_both_units_and_nginx_have_one_user_that_exists_before(machine: Machine, tmp_path: Path) -> None:
    """A user for each start (DynamicUser=) owns nothing that nginx or a disk in the folder could belong to."""
    (tmp_path / "nginx").mkdir()
    (tmp_path / "nginx/nginx.conf").write_text("user www-data;\nworker_processes auto;\n")
    assert INSTALL.startswith("useradd ") and INSTALL.splitlines()[0].endswith(" uponce")
    assert " --home-dir /var/lib/uponce " in INSTALL
    machine.run(NGINX)
    assert (tmp_path / "nginx/nginx.conf").read_text() == "user uponce;\nworker_processes auto;\n"
    assert machine.settings() == {"UPONCE_STORAGE_ACCEL": "/_blobs/"}
    assert machine.asked() == ["restart uponce nginx"]
    for unit in ("uponce.service", "uponce-backup.service"):
        lines = (DEPLOY / unit).read_text().splitlines()
        assert "User=uponce" in lines and not any(line.startswith("DynamicUser=") for line in lines)
        assert "Environment=HOME=/var/lib/uponce" in lines  # ProtectHome= closes all others


def test_a_broken_site_of_nginx_changes_nothing_else(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "nginx").mkdir()
    (tmp_path / "nginx/nginx.conf").write_text("user www-data;\n")
    machine.stub("nginx", "exit 1\n")
    assert machine.paste(NGINX) == 1
    assert (machine.settings(), machine.asked()) == ({}, [])


@pytest.mark.proof
def test_the_media_move_to_another_disk(machine: Machine, box: Server, tmp_path: Path) -> None:
    assert box.post(box.signed({"public_id": "small"}), b"in a pack").status == 200
    assert box.stop() == 0
    assert "damage: 0" in machine.run(DISK)
    assert (machine.asked("mount"), (tmp_path / "fstab").read_text().count("ext4")) == ([f"{box.data_dir}/media"], 1)
    assert machine.asked("chown") == [f"uponce: {box.data_dir}/media"]
    (box.data_dir / "media/lost+found").mkdir(mode=0)  # as in the root of a new ext4
    box.start()
    assert box.get(f"/{box.cloud}/raw/upload/small").data == b"in a pack"
    assert as_json(box, "fsck", "--deep")["damage"] == 0


@pytest.fixture
def disk(machine: Machine, box: Server, tmp_path: Path) -> Path:
    """A disk that has the media of the stopped server. `mount` shows it, in one shell only."""
    machine.inside = ("unshare", "--mount")
    if subprocess.run([*machine.inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("ABSENT: only root can mount a disk, and not in every container")
    assert box.post(box.signed({"public_id": "large"}), LARGE).status == 200
    back_up(machine)
    assert box.stop() == 0
    (box.data_dir / "media").rename(tmp_path / "disk")
    (box.data_dir / "media").mkdir()
    machine.stub("mount", f'{shutil.which("mount")} --bind {tmp_path}/disk "$1"\n')
    return tmp_path / "disk"


def large_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size == len(LARGE)]


MOUNT = DISK[DISK.index("mount /var") : DISK.index(" &&\n  cp -a")] + "\n"


def test_a_restore_puts_the_media_on_the_disk_for_them(
    machine: Machine, box: Server, disk: Path, tmp_path: Path
) -> None:
    """Not on the disk of the system, where the next boot would hide them below the mount."""
    (lost,) = large_files(disk)
    lost.unlink()
    machine.run(MOUNT + RESTORE_DISK)
    assert large_files(disk) == [lost]
    assert not any((box.data_dir / "media").iterdir())  # seen without the mount
    assert machine.asked() == [DISABLED, ENABLED]
    # The disk may be of another machine, where the user had another number.
    assert machine.asked("chown") == [f"uponce: {box.data_dir}", f"-R uponce: {box.data_dir}/media"]
    assert (tmp_path / "lib/uponce.before/uponce.db").exists()


def test_a_restore_for_one_disk_moves_no_mount(machine: Machine, disk: Path, tmp_path: Path) -> None:
    assert machine.paste(MOUNT + RESTORE) == 1
    assert machine.asked() == []
    assert not (tmp_path / "lib/uponce.before").exists()


def test_a_move_to_a_bucket_leaves_a_mounted_disk_alone(machine: Machine, box: Server, disk: Path) -> None:
    """`mv` would move the database, and then refuse to move the mount."""
    keys = "AWS_REGION=r AWS_ACCESS_KEY_ID=k AWS_SECRET_ACCESS_KEY=s\n"
    assert machine.paste(MOUNT + keys + IN_BUCKET) == 1
    assert machine.asked() == []
    assert (box.data_dir / "uponce.db").exists() and not (box.data_dir / "before").exists()


def test_a_move_to_a_bucket_leaves_a_database_alone_whose_log_still_has_a_part_of_it(
    machine: Machine, box: Server
) -> None:
    """As on a full disk. `mv` would move a database without its last rows."""
    (box.data_dir / "new.db").touch()
    (box.data_dir / "new.db-wal").touch()
    keys = "AWS_REGION=r AWS_ACCESS_KEY_ID=k AWS_SECRET_ACCESS_KEY=s\n"
    assert machine.paste(keys + IN_BUCKET) == 1
    assert machine.asked() == []
    assert (box.data_dir / "uponce.db").exists() and not (box.data_dir / "before").exists()


@pytest.mark.proof
def test_the_media_move_to_a_bucket(machine: Machine, box: Server, tmp_path: Path) -> None:
    """SQLite stays. A signature that is spent stays spent, the backup copies from the bucket, and can be restored."""
    store = seaweedfs.shared()
    machine.names |= {
        "s3://my-bucket/media": store.fresh_url(),
        "AWS_REGION='eu-central-1'": f"AWS_ENDPOINT_URL='{store.endpoint}' AWS_REGION='us-east-1'",
        "'KEY'": store.environment["AWS_ACCESS_KEY_ID"],
        "'SECRET'": store.environment["AWS_SECRET_ACCESS_KEY"],
        "AWS_REGION='$AWS_REGION'\n": f"AWS_ENDPOINT_URL='{store.endpoint}'\nAWS_REGION='$AWS_REGION'\n",
    }
    spent, fresh = box.signed({"public_id": "cat"}), box.signed({"nonce": "fresh"})
    assert code_of(box, spent) == ""
    (tmp_path / "uponce.env").write_text("UPONCE_STORAGE_ACCEL='/_blobs/'\n")
    back_up(machine)
    assert "moved and compared" in machine.run(TO_BUCKET)
    assert box.stop() == 0
    machine.run(TO_BUCKET.partition("uponce migrate-store")[0] + IN_BUCKET)  # the reader has one shell for both
    assert machine.asked() == ["stop uponce", "daemon-reload", "start uponce"]
    assert "UPONCE_STORAGE_ACCEL" not in machine.settings()
    dropin = (tmp_path / "units/uponce-backup.service.d/bucket.conf").read_text()
    assert "PrivateNetwork=no\nRestrictAddressFamilies=AF_INET AF_INET6\n" in dropin

    with Server(box.data_dir, port=box.port, env=machine.settings()) as server:
        server.cloud, server.browser = box.cloud, box.browser
        assert [code_of(server, fields) for fields in (spent, fresh)] == ["signature_used", ""]
        assert server.get(f"/{box.cloud}/raw/upload/cat").data == b"bytes"
        back_up(machine)
        assert server.stop() == 0
        machine.run(RESTORE.replace("uponce restore", "uponce restore --reuse-storage"))
        server.start()
        assert server.get(f"/{box.cloud}/raw/upload/cat").data == b"bytes"


def test_the_units_of_the_guide_are_such_with_each_drop_in(machine: Machine, tmp_path: Path) -> None:
    """As systemd reads them, with the program of this checkout."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("ABSENT: systemd-analyze is not installed")
    machine.run(BACKUP + SERVICE + IN_BUCKET[IN_BUCKET.index("mkdir -p") :])
    for name in ("uponce.service", "uponce-backup.service"):
        unit = tmp_path / "units" / name
        unit.write_text(unit.read_text().replace("/opt/uponce/bin/uponce", f"{Path(sys.executable).parent}/uponce"))
        done = subprocess.run(
            [program, "verify", "--man=no", unit],
            env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning", "SYSTEMD_UNIT_PATH": f"{tmp_path}/units:"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
