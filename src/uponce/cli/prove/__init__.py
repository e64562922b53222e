"""`uponce prove`: races, aborts and replays against a running deployment, ours or another's, from outside."""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import typer
from rich.console import Console

from uponce.cli.credentials import Credentials, credentials_of, find_credentials
from uponce.cli.options import print_json
from uponce.cli.prove.board import Board
from uponce.cli.prove.checks import Check, Outcome, Plan, Verdict, checks, worst
from uponce.cli.prove.cleanup import CleanUp, clean_up
from uponce.cli.prove.site import Site
from uponce.core.errors import SettingRefused


def run(*, url: str | None, key: str | None, data: str | None, plan: Plan, as_json: bool) -> None:
    """Exit code 0 when every promise was seen to hold, 1 otherwise."""
    began = time.monotonic()
    site, board, every = Site(_target(url, key, data), plan.seconds), Board(Console(stderr=as_json)), checks(plan)
    try:
        outcomes, cleaned = asyncio.run(_prove(site, board, every, plan))
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None
    seconds = time.monotonic() - began
    board.sum_up(outcomes, seconds, site.sent)
    if as_json:
        print_json(_report(site, every, outcomes, cleaned, seconds))
    if worst(outcome.verdict for outcome in outcomes) is not Verdict.HOLDS:
        raise typer.Exit(1)


def _target(url: str | None, key: str | None, data: str | None) -> Credentials:
    """`cloudinary://…` as it is; another address with KEY:SECRET@CLOUD; else CLOUDINARY_URL or the data folder."""
    if url is None:
        return find_credentials(data, key)
    if url.startswith("cloudinary:"):
        return credentials_of(url)
    if key is None:
        raise typer.BadParameter(f"For {url}, also give --key KEY:SECRET@CLOUD.")
    return credentials_of(f"cloudinary://{key}?upload_prefix={url}")


async def _prove(site: Site, board: Board, every: Sequence[Check], plan: Plan) -> tuple[list[Outcome], CleanUp]:
    """Where the very first upload is not taken, nothing else is sent. Cleans up also when it is interrupted."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    first, *others = every
    requests = sum(check.requests for check in every)
    board.open(site, plan, requests)
    outcomes = [await _act(first, site)]
    _require_a_working_key(site, outcomes[0])
    board.row(first, outcomes[0])
    try:
        with board.progress(requests, done=first.requests) as progress:
            site.on_request = progress.sent
            for check in others:
                progress.begin(check)
                outcomes.append(await _act(check, site))
                board.row(check, outcomes[-1])
    finally:
        site.on_request = lambda: None
        cleaned = await clean_up(site)
        board.tell_clean_up(site, cleaned)
    return outcomes, cleaned


async def _act(check: Check, site: Site) -> Outcome:
    if site.time_is_up:
        return Outcome(Verdict.UNCLEAR, "not tried: time was up")
    return await check.act(site)


def _require_a_working_key(site: Site, first: Outcome) -> None:
    if first.verdict is not Verdict.HOLDS:
        what = f"{first.seen}, {first.quote.rstrip('.')}" if first.quote else first.seen
        raise SettingRefused(
            f"{site.base} did not take a first upload: {what}. Check the address, the cloud and the key."
        )


def _report(
    site: Site, every: Sequence[Check], outcomes: Sequence[Outcome], cleaned: CleanUp, seconds: float
) -> dict[str, Any]:
    return {
        "verdict": worst(outcome.verdict for outcome in outcomes),
        "url": site.base,
        "cloud": site.cloud,
        "folder": site.folder,
        "seconds": round(seconds, 1),
        "requests": site.sent,
        "checks": [
            {"chapter": check.chapter, "check": check.title, "promise": check.promise, **asdict(outcome)}
            for check, outcome in zip(every, outcomes, strict=True)
        ],
        "clean_up": asdict(cleaned),
    }
