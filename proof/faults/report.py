"""What a campaign has to say: one Report for each run, which a script adds to the published figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Report:
    """One run of one campaign.

    `counts` is what was done and with which result, in the campaign's words. `inside` is how many faults hit something
    under way that they could break. `zeros` are the violations, which must all be 0. `controls` are the losses of the
    broken variants, which must all be above 0.
    """

    campaign: str
    seed: int
    counts: Mapping[str, int]
    inside: int
    zeros: Mapping[str, int]
    controls: Mapping[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return not any(self.zeros.values()) and all(self.controls.values())


# A campaign runs for about so many seconds with this seed: `proof/faults/campaigns/<name>.py` has one as `run`.
Campaign = Callable[[float, int], Report]
