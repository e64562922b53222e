"""The commands of the README and of CI: what they call, and that CI takes neither a skip nor a failure."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from botocore.session import get_session
from botocore.validate import ParamValidator

ROOT = Path(__file__).parents[2]
CI = ROOT / ".ci/run"
MAKEFILE = (ROOT / "Makefile").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()

PASSED = "============ 12 passed in 1.00s ============"
SKIPPED = "SKIPPED [1] tests/test_a.py:1: ABSENT: caddy is not installed"
SAYS = {"test": PASSED, "proof": PASSED.replace("12", "34"), "demo": "all as promised"}


def recipe(target: str) -> str:
    """The lines that make runs for a target."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n?)+)", MAKEFILE, re.MULTILINE)
    assert found is not None, target
    return found[1]


def run_ci(folder: Path, says: dict[str, str], fails: str = "") -> tuple[int, list[str], str]:
    """Run CI with a make that says so: its exit code, the targets it asked for, and all it printed."""
    programs, asked = folder / "bin", folder / "asked"
    programs.mkdir()
    cases = "".join(f"{target}) echo '{text}';;\n" for target, text in says.items())
    fake = f'#!/bin/sh\necho "$1" >> {asked}\ncase "$1" in\n{cases}esac\n[ "$1" != "{fails}" ]\n'
    for name in re.findall(r"^need (\S+)", CI.read_text(), re.MULTILINE):
        (programs / name).write_text(fake if name == "make" else "#!/bin/sh\n")
        (programs / name).chmod(0o755)
    (programs / "python3").write_text("#!/bin/sh\n")
    (programs / "python3").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", CI], env={"PATH": path}, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, asked.read_text().split(), done.stdout + done.stderr


def test_a_setup_without_pip_is_repeated(tmp_path: Path) -> None:
    """Debian without `python3-venv` makes a folder with a Python in it, and then says what to install."""
    (tmp_path / "Makefile").write_text(MAKEFILE)
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\n[ "$1" = -c ] && exit\necho "$@" >> asked\nmkdir -p .venv/bin\ncp "$0" .venv/bin/python\nexit 1\n'
    )
    python.chmod(0o755)
    for _ in range(2):
        command = ["make", "setup", f"PYTHON={python}"]
        assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode != 0
    assert (tmp_path / "asked").read_text() == "-m venv .venv\n" * 2


def test_ci_runs_tests_proof_and_demo_and_ends_with_their_closing_lines(tmp_path: Path) -> None:
    code, asked, printed = run_ci(tmp_path, SAYS)
    assert (code, asked) == (0, ["test", "proof", "demo"]), printed
    assert printed.splitlines()[-2:] == [SAYS["proof"], SAYS["test"]]


@pytest.mark.parametrize("target", ["test", "proof"])
@pytest.mark.parametrize("skip", [f"{SKIPPED}\n{PASSED}", PASSED.replace(" in", ", 1 skipped in")])
def test_ci_fails_on_a_skipped_test(tmp_path: Path, target: str, skip: str) -> None:
    code, _, printed = run_ci(tmp_path, SAYS | {target: skip})
    assert code == 1
    assert "a test was skipped" in printed


@pytest.mark.parametrize("target", ["test", "proof", "demo"])
def test_ci_fails_with_each_of_its_commands(tmp_path: Path, target: str) -> None:
    assert run_ci(tmp_path, SAYS, fails=target)[0] != 0


def test_the_readme_names_the_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert re.search(r"^make test\b", readme, re.MULTILINE)
    assert re.search(r"^make demo\b", readme, re.MULTILINE)
    assert "pytest" not in readme


def test_each_test_belongs_to_one_command() -> None:
    """`make test`, `make proof` and `make full` choose by two markers and leave nothing out."""
    assert "-m 'not full and not proof'" in PYPROJECT
    chosen = {target: re.findall(r"-m pytest\b(.*)", recipe(target)) for target in ("test", "proof", "full")}
    assert chosen == {
        "test": [" -n 2 --dist loadgroup"],
        "proof": [' -n 2 --dist loadgroup -m "proof and not full" --timeout 900'],
        "full": [" -m full -s --timeout 0"],
    }
    assert " check" in recipe("test")


def test_no_test_has_a_long_name(request: pytest.FixtureRequest) -> None:
    """Each process of a run sends all names before its first test: 140 MB of them took 7 of 17 seconds."""
    assert max((item.nodeid for item in request.session.items), key=len)[1000:] == ""


GROUPED = """
import os, pathlib, pytest

@pytest.mark.xdist_group("alone")
@pytest.mark.parametrize("number", range(8))
def test_where(number):
    pathlib.Path(os.environ["PYTEST_XDIST_WORKER"]).touch()
"""


def test_one_process_runs_all_tests_of_a_group(tmp_path: Path) -> None:
    """pytest-xdist 3.8 deals them out to all processes with pytest 9.2, without a word."""
    (tmp_path / "test_group.py").write_text(GROUPED)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider", "."]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    assert len(list(tmp_path.glob("gw*"))) == 1


def test_the_lifecycle_rule_of_the_guide_is_one_for_s3_and_touches_no_other_prefix() -> None:
    """The command replaces all rules of the bucket, so the guide shows how to read them first."""
    guide = (ROOT / "docs/guide/production.md").read_text()
    before, _, after = guide.partition("put-bucket-lifecycle-configuration")
    lifecycle = json.loads(after.partition("'")[2].partition("'")[0])
    shape = get_session().get_service_model("s3").operation_model("PutBucketLifecycleConfiguration").input_shape
    asked = {"Bucket": "my-bucket", "LifecycleConfiguration": lifecycle}
    assert not ParamValidator().validate(asked, shape).has_errors()
    (rule,) = lifecycle["Rules"]
    assert rule["Filter"] == {"Prefix": "media/"}
    assert rule["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] >= 7
    assert "get-bucket-lifecycle-configuration" in before
