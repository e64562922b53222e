"""What users install: the wheel has all that the commands need, the image has that and no more."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import uponce
from uponce import __version__
from uponce.config import load

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_tests_run_this_source() -> None:
    """And no copy of it that `pip install .` made: edits would have no effect."""
    assert Path(uponce.__file__) == ROOT / "src/uponce/__init__.py"


def pins(lock: str) -> dict[str, str]:
    """Each package with its version and hashes as they are written there."""
    blocks = re.split(r"^(?=[a-z0-9-]+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)[1:]
    return {block.partition("==")[0]: block.partition("==")[2] for block in blocks}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[><=~!; ]", each)[0] for each in requirements}


# --- lock files


def test_both_lock_files_agree() -> None:
    runtime, development = pins("requirements-runtime.lock"), pins("requirements.lock")
    versions = {name: text.split()[0] for name, text in runtime.items()}
    assert versions == {name: development[name].split()[0] for name in runtime}
    assert all(set(hashes(text)) == set(hashes(development[name])) for name, text in runtime.items())
    assert names(PROJECT["dependencies"]) <= runtime.keys()
    extras = set().union(*(names(each) for each in PROJECT["optional-dependencies"].values()))
    assert not (extras - names(PROJECT["dependencies"])) & runtime.keys()


def hashes(text: str) -> list[str]:
    return re.findall(r"--hash=sha256:[0-9a-f]{64}", text)


def test_the_runtime_lock_has_hashes_and_no_index() -> None:
    text = (ROOT / "requirements-runtime.lock").read_text()
    assert "://" not in text and "--index" not in text
    assert all(hashes(block) for block in pins("requirements-runtime.lock").values())


# --- the wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the contents of a wheel that was built of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=240)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, cwd: Path, *words: str, blocked: str = "") -> subprocess.CompletedProcess[str]:
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); sys.modules.update({{{blocked!r}: None}})\n"
        f"import uponce; assert uponce.__file__.startswith({str(installed)!r})\n"
        "from uponce.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *words], cwd=cwd, capture_output=True, text=True, timeout=240, check=False
    )


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(installed: Path) -> None:
    sources = {path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*") if path.is_file()}
    sources = {path for path in sources if "__pycache__" not in path.parts}
    packed = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    assert {path for path in packed if path.parts[0] == "uponce"} == sources
    assert {path.parts[0] for path in packed} == {"uponce", f"uponce-{__version__}.dist-info"}


def test_commands_of_an_installed_wheel_work(installed: Path, tmp_path: Path) -> None:
    made = run(installed, tmp_path, "keys", "create", "--data", "data")
    assert (made.returncode, made.stdout[:15]) == (0, "CLOUDINARY_URL="), made.stderr
    assert run(installed, tmp_path, "sign", "--data", "data").returncode == 0


def test_the_demo_says_on_its_first_line_what_to_install(installed: Path, tmp_path: Path) -> None:
    """`pip install .` leaves out the SDK that the demo signs with."""
    done = run(installed, tmp_path, "demo", blocked="cloudinary")
    (sdk,) = PROJECT["optional-dependencies"]["demo"]
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].endswith(f"Run: {sys.executable} -m pip install '{sdk}'")


def test_no_text_of_the_program_refers_to_a_file_that_a_wheel_lacks() -> None:
    """Docstrings and comments are for readers of the source; all other strings may reach users."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in ast.walk(tree) if isinstance(node, documented)]
        docstrings = {id(node.body[0].value) for node in nodes if node.body and isinstance(node.body[0], ast.Expr)}
        found += [
            f"{path.name}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
            if re.search(r"\b(docs|deploy|tests)/|README|CONTRIBUTING|SECURITY\.md", node.value)
        ]
    assert found == []


# --- the image


def stages() -> list[list[tuple[str, str]]]:
    """Each spooled of the Dockerfile as its instructions."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.startswith("#")]
    found: list[list[tuple[str, str]]] = []
    for word, _, rest in (line.partition(" ") for line in lines):
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest.strip()))
    return found


def test_the_image_runs_as_a_user_with_a_volume_and_a_health_check() -> None:
    _, last = stages()
    image = dict(last)
    variables = dict(re.findall(r"(UPONCE_\w+)=(\S+)", image["ENV"]))
    settings = load(variables)
    assert (settings.host, settings.data) == ("0.0.0.0", image["VOLUME"])
    assert re.fullmatch(r"[1-9]\d+", image["USER"]) and f"--uid {image['USER']} " in image["RUN"]
    assert image["EXPOSE"] == str(settings.port)
    assert "/healthz" in image["HEALTHCHECK"] and image["CMD"] == '["uponce", "serve"]'
    order = [word for word, _ in last]
    assert order.index("USER") > max(i for i, word in enumerate(order) if word in ("RUN", "COPY"))


def test_the_image_has_the_runtime_lock_alone() -> None:
    build, last = stages()
    runs = " ".join(" && ".join(rest for word, rest in build if word == "RUN").split())
    into_the_image = re.findall(r"/opt/uponce/bin/pip install (.*?) &&", runs)
    assert into_the_image == [
        "--no-cache-dir --require-hashes -r requirements-runtime.lock",
        "--no-cache-dir --no-deps --no-index /wheels/*.whl",
    ]
    assert [rest for word, rest in last if word == "COPY"] == ["--from=build /opt/uponce /opt/uponce"]
    tools = re.search(r"\^\(([\w|-]+)\)==", runs)
    assert tools is not None
    assert set(tools[1].split("|")) <= pins("requirements.lock").keys()


def test_the_readme_builds_and_runs_the_image_as_the_guide_does() -> None:
    readme, guide = ((ROOT / page).read_text() for page in ("README.md", "docs/guide/install.md"))
    shown = re.findall(r"^(?:docker|pipx) .*", readme, re.MULTILINE)
    assert len(shown) == 3
    assert [command for command in shown if f"\n{command}\n" not in guide] == []
    assert all("--detach" in command for command in shown if "docker run" in command)  # else the terminal is not free


def test_the_files_that_the_image_is_built_of_exist_and_are_sent_to_docker() -> None:
    copied = [name for word, rest in stages()[0] if word == "COPY" for name in rest.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    ignored, *kept = (ROOT / ".dockerignore").read_text().split()
    assert ignored == "*"
    assert set(copied) <= {name.removeprefix("!") for name in kept}
