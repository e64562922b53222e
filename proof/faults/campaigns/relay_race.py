"""Only the races of the relay campaign, which count most: 50 racers a signature, at one relay and at four."""

from functools import partial

from proof.faults.campaigns import relay
from proof.faults.fleet import POSTGRES
from proof.faults.relayed import RACERS, Rules
from proof.faults.report import Report

SITTING_SECONDS = 60.0
RACES = (
    partial(relay.race, Rules(1, RACERS)),
    partial(relay.race, Rules(4, RACERS)),
    partial(relay.race, Rules(4, RACERS, POSTGRES)),
)


def run(seconds: float, seed: int) -> Report:
    return relay.series_of("relay_race", RACES, SITTING_SECONDS, seconds, seed)
