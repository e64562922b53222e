"""The code that the README and the guides show, run unchanged."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import NODE
from tests.server import Server

pytestmark = pytest.mark.xdist_group("node sdk")

ROOT = Path(__file__).parents[2]


def block(page: str, language: str, containing: str) -> str:
    """The one fenced block of that language with that text in it, without its indentation."""
    fences = re.findall(rf"^( *)```{language}\n(.*?)^ *```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [(indent, text) for indent, text in fences if containing in text]
    return re.sub(f"^{found[0]}", "", found[1], flags=re.MULTILINE)


def test_the_code_of_the_forum_question(server: Server, node: str, media: Path) -> None:
    """The README's first block, with only the address changed: the first post is stored, the second refused."""
    code = block("README.md", "js", "api_sign_request").replace("http://127.0.0.1:8000", server.base)
    posts = re.findall(r"^await (fetch\(.*?\));.*$", code, re.MULTILINE)
    shown = re.sub(r"^await (fetch\(.*?\));", r"answers.push(await \1);", code, flags=re.MULTILINE)
    program = f"""
        const cloudinary = require("cloudinary-newest").v2;
        const API_KEY = {json.dumps(server.browser.key)}, API_SECRET = {json.dumps(server.browser.secret)};
        (async () => {{
          const file = new Blob([require("fs").readFileSync({json.dumps(str(media / "cat.jpg"))})]);
          const answers = [];
          {shown}
          const bodies = [];
          for (const answer of answers) bodies.push([answer.status, await answer.json()]);
          console.log(JSON.stringify(bodies));
        }})();
    """
    done = subprocess.run([node, "-e", program], cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (first, stored), (second, refused) = json.loads(done.stdout)

    assert len(posts) == 2
    assert (first, stored["folder"]) == (200, "cats")
    assert (second, refused["error"]["code"]) == (400, "signature_used")


def test_the_python_of_the_sdk_guide(server: Server, media: Path) -> None:
    """Prints a URL that serves the file; then deletes it."""
    code = block("docs/guide/sdk.md", "python", "uploader.upload(").replace("cat.gif", str(media / "dance.gif"))
    url = python(code, server).strip()
    assert server.get(url).data == (media / "dance.gif").read_bytes()
    name = url.partition("/cats/")[2].removesuffix(".gif")
    deletion = block("docs/guide/sdk.md", "python", "uploader.destroy(").replace("cats/tabby", f"cats/{name}")
    python(f"import cloudinary.uploader\n{deletion}", server)
    assert server.get(url).status == 404


def python(code: str, server: Server) -> str:
    """What it prints."""
    environment = {**os.environ, "CLOUDINARY_URL": server.urls[1]}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_of_the_browser_guide(server: Server, media: Path) -> None:
    """Two signatures of one second differ; each uploads a file, once."""
    names: dict[str, object] = {"API_SECRET": server.browser.secret, "API_KEY": server.browser.key}
    exec(block("docs/guide/browser.md", "python", "api_sign_request"), names)
    sign = names["sign"]
    assert callable(sign)
    first, second = sign("dogs"), sign("dogs")
    answers = [server.post(fields, (media / "cat.jpg").read_bytes()) for fields in (first, second, first)]

    assert [answer.status for answer in answers] == [200, 200, 400]
