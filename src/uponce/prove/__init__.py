"""`uponce prove`: races, aborts and replays from outside, against any running deployment."""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from uponce.core.errors import SettingRefused
from uponce.prove.board import CheckBoard
from uponce.prove.checks import Check, CheckResult, Plan, Verdict, checks, worst
from uponce.prove.site import CleanUp, Site, clean_up


@dataclass(frozen=True, slots=True)
class Proof:
    """The checks, the outcome of each in order, and what was removed afterwards."""

    site: Site
    checks: Sequence[Check]
    outcomes: Sequence[CheckResult]
    cleaned: CleanUp
    seconds: float

    @property
    def verdict(self) -> Verdict:
        return worst(outcome.verdict for outcome in self.outcomes)

    def as_data(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "url": self.site.base,
            "cloud": self.site.cloud,
            "folder": self.site.folder,
            "seconds": round(self.seconds, 1),
            "requests": self.site.sent,
            "checks": [
                {"chapter": check.chapter, "check": check.title, "promise": check.promise, **asdict(outcome)}
                for check, outcome in zip(self.checks, self.outcomes, strict=True)
            ],
            "clean_up": asdict(self.cleaned),
        }


async def prove(site: Site, board: CheckBoard, plan: Plan) -> Proof:
    """Run all checks on a site, show each outcome on the board at once, and return the proof.

    Raise SettingRefused, and send nothing else, if the server does not accept the first upload. If SIGTERM ends the
    checks, remove the files too, then raise CancelledError.
    """
    began, every = time.monotonic(), checks(plan)
    outcomes, cleaned = await _prove(site, board, every, plan)
    proof = Proof(site, every, outcomes, cleaned, time.monotonic() - began)
    board.sum_up(outcomes, proof.seconds, site.sent)
    return proof


async def _prove(
    site: Site, board: CheckBoard, every: Sequence[Check], plan: Plan
) -> tuple[list[CheckResult], CleanUp]:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    first, *others = every
    requests = sum(check.requests for check in every)
    board.open(site, plan, requests, sum(check.files for check in every))
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


async def _act(check: Check, site: Site) -> CheckResult:
    if site.time_is_up:
        return CheckResult(Verdict.UNCLEAR, "not tried: time was up")
    return await check.act(site)


def _require_a_working_key(site: Site, first: CheckResult) -> None:
    if first.verdict is not Verdict.HOLDS:
        what = f"{first.seen}, {first.quote.rstrip('.')}" if first.quote else first.seen
        raise SettingRefused(
            f"{site.base} did not take a first upload: {what}. Check the address, the cloud and the key in --url and "
            "--key, or in CLOUDINARY_URL."
        )
