"""A result as text for a terminal."""

import statistics
from collections.abc import Sequence

from proof.bench.result import CaseResult, ClaimResult, Result


def printed(result: Result) -> str:
    return "\n".join(
        [
            f"{result.row}  {result.title}",
            *(line for case in result.cases for line in _case(case)),
            *(_claim(claim) for claim in result.claims),
            *(f"  {name} was not measured: {reason}" for name, reason in result.unmeasured.items()),
            "",
        ]
    )


def spread(values: Sequence[float]) -> str:
    """Return the median, with the least and the greatest."""
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Three digits that count, and all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def target(claim: ClaimResult) -> str:
    if claim.at_least is not None:
        return f"≥ {number(claim.at_least)}"
    return "" if claim.at_most is None else f"≤ {number(claim.at_most)}"


def verdict(claim: ClaimResult) -> str:
    if claim.at_least is None and claim.at_most is None:
        return ""
    return "met" if claim.met else "missed"


def _case(case: CaseResult) -> list[str]:
    lines = [f"  {case.name}"]
    return lines + [f"    {spread(case.figures(name)):>28}  {name}" for name in case.samples[0]]


def _claim(claim: ClaimResult) -> str:
    over = f" over {claim.over}" if claim.over else ""
    judgement = " ".join(word for word in (target(claim), verdict(claim)) if word)
    return f"  {spread(claim.values):>28}  {claim.text}: {claim.of}{over}  {judgement}"
