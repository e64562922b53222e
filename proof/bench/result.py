"""What a run has to say: figures of every round, targets met or missed, one line of JSON for each row."""

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from proof.bench.measure import Sample
from proof.bench.row import Claim, Row


class CaseResult(msgspec.Struct, frozen=True):
    name: str
    samples: Sequence[Sample]

    def figures(self, name: str | None) -> list[float]:
        """Return one figure of every round, the main one without a name."""
        return [sample[name or self.main] for sample in self.samples]

    @property
    def main(self) -> str:
        return next(iter(self.samples[0]))


class ClaimResult(msgspec.Struct, frozen=True):
    """`values` are of every round: ratios, or figures where there is nothing to compare with (`over` is None)."""

    text: str
    of: str
    over: str | None
    values: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None
    in_each: bool = False

    @property
    def met(self) -> bool:
        """Return whether the median reaches the target, or with `in_each` every round."""
        judged = self.values if self.in_each else (statistics.median(self.values),)
        enough = self.at_least is None or min(judged) >= self.at_least
        return enough and (self.at_most is None or max(judged) <= self.at_most)


class Result(msgspec.Struct, frozen=True):
    """One row of one run."""

    row: str
    title: str
    date: str
    commit: str
    dirty: bool
    command: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    cases: Sequence[CaseResult]
    claims: Sequence[ClaimResult]
    unmeasured: Mapping[str, str] = {}  # cases that could not be, with the reason


def judged(row: Row, cases: Sequence[CaseResult]) -> list[ClaimResult]:
    """Return the results of the row's claims. Omit claims about cases that were not measured."""
    known = {case.name: case for case in cases}
    return [
        _judged(claim, [known[name] for name in claim.of], [known[name] for name in claim.over])
        for claim in row.claims
        if all(name in known for name in (*claim.of, *claim.over))
    ]


def compared(cases: Sequence[CaseResult], pairs: Mapping[str, str]) -> list[ClaimResult]:
    """Each case against that of another commit in the same rounds, without a target."""
    known = {case.name: case for case in cases}
    return [
        ClaimResult(f"{figure}, over the other commit", new, old, _ratios(known[new], known[old], figure))
        for new, old in pairs.items()
        if new in known and old in known
        for figure in known[new].samples[0]
        if not figure.endswith(("of a core", "of the machine"))
    ]


def _judged(claim: Claim, of: Sequence[CaseResult], over: Sequence[CaseResult]) -> ClaimResult:
    case = _best(of, claim)
    if not over:
        values, name = case.figures(claim.figure), None
    else:
        other = _best(over, claim)
        values, name = _ratios(case, other, claim.figure), other.name
    return ClaimResult(claim.text, case.name, name, values, claim.at_least, claim.at_most, claim.in_each)


def _best(cases: Sequence[CaseResult], claim: Claim) -> CaseResult:
    choose = max if claim.at_most is None else min
    return choose(cases, key=lambda case: statistics.median(case.figures(claim.figure)))


def _ratios(of: CaseResult, over: CaseResult, figure: str | None) -> list[float]:
    return [a / b if b else 0.0 for a, b in zip(of.figures(figure), over.figures(figure), strict=True)]
