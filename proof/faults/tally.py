"""What a campaign counts while it runs, and the Report it ends as."""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from proof.faults.audit import Receipt, examine
from proof.faults.operator import check
from proof.faults.place import Place
from proof.faults.report import Report

FOUR = ("lost", "double", "orphans", "hollow")


@dataclass
class Tally:
    """The counts of a campaign. `notes` has a sentence on every violation, which helps to find its cause."""

    counts: Counter[str] = field(default_factory=Counter)
    zeros: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(FOUR, 0)))
    controls: Counter[str] = field(default_factory=Counter)
    inside: int = 0
    notes: list[str] = field(default_factory=list)

    def expect(self, holds: bool, zero: str, note: object) -> None:
        """Count one violation under the name `zero`, unless it holds."""
        self.zeros[zero] += not holds
        if not holds:
            self.notes.append(f"{zero}: {note}")

    def audit(self, where: Path | Place, receipts: Iterable[Receipt] = (), only: Iterable[str] = FOUR) -> None:
        """Audit. All four are checked at the end, after a sweep: then `uponce fsck` must agree."""
        findings = asdict(examine(where, receipts))
        for name in only:
            self.zeros[name] += len(findings[name])
            self.notes += [f"{name}: {finding}" for finding in findings[name]]
        if "orphans" in only:
            found = check(where)
            self.zeros["found by fsck"] += len(found)
            self.notes += [f"found by fsck: {finding}" for finding in found]

    def add(self, other: "Tally") -> None:
        """Add the counts of another thread."""
        self.counts.update(other.counts)
        self.zeros.update(other.zeros)
        self.inside += other.inside
        self.notes += other.notes

    @property
    def violations(self) -> int:
        return self.zeros.total()

    def report(self, campaign: str, seed: int) -> Report:
        """Says on stderr what the zeros only count."""
        counts, zeros, controls = (dict(counter) for counter in (self.counts, self.zeros, self.controls))
        report = Report(campaign, seed, counts, self.inside, zeros, controls)
        missing = [f"control that the run or CONTROLS lacks: {name}" for name in sorted(report.mismatched)]
        missing += [f"check that the run did not reach: {name}" for name in sorted(report.unreached)]
        for note in self.notes + missing:
            print(f"{campaign}, seed {seed}: {note}", file=sys.stderr)
        return report
