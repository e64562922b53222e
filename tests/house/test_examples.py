"""Every example is listed, driven by a test, and pinned to what the tests run."""

import re
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def test_every_example_is_driven_and_listed() -> None:
    """Or an example could break unseen."""
    names = [path.parent.name for path in EXAMPLES.glob("*/README.md")]
    tests = (ROOT / "tests/e2e/test_examples.py").read_text()
    index = (EXAMPLES / "README.md").read_text()

    assert len(names) == 6
    assert [name for name in names if f'example("{name}")' not in tests] == []
    assert [name for name in names if f"]({name}/README.md)" not in index] == []


def test_python_packages_of_the_examples_are_those_of_the_lock_file() -> None:
    """The examples are tested in this environment, without an installation of their packages."""
    texts = [path.read_text() for path in EXAMPLES.glob("*/requirements.txt")]
    pins = re.findall(r"^(\w+)==(\S+)$", "\n".join(texts), re.MULTILINE)

    assert len(pins) == len(texts) == 2
    assert {name: version(name) for name, _ in pins} == dict(pins)


def test_lock_files_of_npm_have_hashes_and_no_address() -> None:
    locks = [path.read_text() for path in EXAMPLES.glob("*/package-lock.json")]

    assert len(locks) == 4
    assert [lock for lock in locks if '"resolved"' in lock or '"integrity"' not in lock] == []
