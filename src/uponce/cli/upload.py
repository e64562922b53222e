"""`uponce upload`: each file under a signature of its own, streamed, with progress.

A server that cannot be reached, or whose answer was lost, is asked again, under an Idempotency-Key: it gives the answer
that was lost and stores nothing twice.
"""

from pathlib import Path
from typing import Any

import msgspec
import typer
import urllib3
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from uponce.adapters.clock import RandomIds, SystemClock
from uponce.app.sign import mint
from uponce.cli.credentials import Credentials, find_credentials
from uponce.cli.options import parse_pairs, print_json
from uponce.cli.sign import as_one_url, upload_url
from uponce.core.errors import NotFound

_BLOCK = 1024 * 1024
_RETRIES = urllib3.Retry(
    total=5,
    connect=3,
    allowed_methods=None,
    status_forcelist=(502, 503, 504),
    backoff_factor=0.5,
    raise_on_status=False,
)


def run(
    files: list[str], parameters: list[str], *, data: str | None, key: str | None, resource_type: str, as_json: bool
) -> None:
    paths = [Path(file) for file in files]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise NotFound(f"There is no file {missing}.")
    credentials = find_credentials(data, key)
    signed = parse_pairs(parameters)
    answers: list[dict[str, Any]] = []
    with _progress() as progress:
        for path in paths:
            task = progress.add_task(path.name, total=path.stat().st_size)
            answers.append(_upload(credentials, path, signed, resource_type, progress, task))
    if as_json:
        print_json(answers)
    else:
        for path, answer in zip(paths, answers, strict=True):
            typer.echo(answer.get("secure_url") or f"{path}: {answer['error']['message']}", err="error" in answer)
    if any("error" in answer for answer in answers):
        raise typer.Exit(1)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True))


def _upload(
    credentials: Credentials,
    path: Path,
    signed: dict[str, str],
    resource_type: str,
    progress: Progress,
    task: TaskID,
) -> dict[str, Any]:
    fields = mint(credentials.key, {"filename_override": path.name, **signed}, clock=SystemClock(), ids=RandomIds())
    url = as_one_url(upload_url(credentials.base, credentials.key.cloud, resource_type), fields)
    headers = {"content-length": str(path.stat().st_size), "idempotency-key": RandomIds().hex(32)}
    timeout = urllib3.Timeout(connect=10, read=300)
    try:
        with (
            urllib3.PoolManager(blocksize=_BLOCK) as http,
            path.open("rb") as file,
            progress.wrap_file(file, task_id=task) as body,
        ):
            response = http.request("PUT", url, body=body, headers=headers, retries=_RETRIES, timeout=timeout)
        answer: dict[str, Any] = msgspec.json.decode(response.data)
    except (urllib3.exceptions.HTTPError, msgspec.DecodeError) as error:
        return {"error": {"message": f"{credentials.base} does not answer as it should: {error}"}}
    return answer
