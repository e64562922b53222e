"""What a campaign has to say: one Report for each run, which a script adds to the published figures."""

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

_TWICE = "signatures that a relay spent twice which"
_RELAY = (f"{_TWICE} frees an unknown outcome", f"{_TWICE} signs before the commit", f"{_TWICE} signs when it wakes")
_IN_GROUPS, _ONE_BY_ONE = (
    f"signatures spent twice by select-then-insert, {way}" for way in ("in groups", "one by one")
)
# The names of the controls of each campaign. A run that lacks one of them does not hold.
CONTROLS: Mapping[str, Collection[str]] = {
    "clients": ("signatures burned by a claim before the upload",),
    "clock": (
        "replays taken after a restore without a fence",
        "replays taken by a key that comes back after a forgotten fence",
        "replays taken by a purge by time of use",
        "replays taken by a purge without watermark",
    ),
    "database": (
        "a server that goes on writing a file that was moved away",
        "an upload that deletes its bytes when the outcome is unknown",
    ),
    "failover": (
        "forgotten uses taken again without a fence",
        "losses of bytes that an unknown outcome might name",
    ),
    "history": (
        "answers before the commit, in groups: anomalies in one history",
        "answers before the commit, one by one: anomalies in one history",
        "forged histories rejected, of all",
        "select-then-insert, in groups: anomalies in one history",
        "select-then-insert, one by one: anomalies in one history",
    ),
    "io": (
        "a store that ignores a failed fsync",
        "a store that ignores a failed fdatasync of a pack",
        "a store that takes a short write for a whole one",
    ),
    "kill": ("untrue answers given before the commit",),
    "kill_s3": ("assets without bytes, which were deleted first", "untrue answers given before the commit"),
    "limits": (
        "deliveries that lack a byte after a piece",
        "listings that lack an asset after a page",
        "uploads whose pieces changed places",
    ),
    "limits_s3": ("deliveries that lack a byte after a piece", "uploads that lack a part after a page"),
    "model": (
        "examples until red: blob discarded on success",
        "examples until red: bytes deleted before the row",
        "examples until red: commit before publish",
        "examples until red: key by the received hex",
        "examples until red: not spent when the asset exists",
        "examples until red: purge by time of use",
        "examples until red: purge without watermark",
        "examples until red: revocation ignored at the commit",
        "examples until red: select-then-insert",
    ),
    "points": (
        "answer before commit",
        "arrival answered first",
        "bytes before row",
        "commit before publish",
        "deleted before commit",
        "record before write",
        "reply after commit",
    ),
    "power": (
        "acknowledged assets lost with synchronous=NORMAL",
        "acknowledged assets lost without fdatasync of the pack",
        "acknowledged assets lost without fsync of the file",
        "acknowledged assets lost without fsync of the folder",
        "rows without bytes by a commit before the sync of the pack",
    ),
    "race": (_IN_GROUPS, _ONE_BY_ONE),
    "race_postgres": (_IN_GROUPS, _ONE_BY_ONE),
    "race_s3": (_ONE_BY_ONE,),
    "relay": _RELAY,
    "relay_points": _RELAY[:1],
    "relay_race": _RELAY,
    "series": (
        "assets that a late piece has changed",
        "replays taken when only the last signature is spent",
        "uploads torn by a record before the bytes",
    ),
    "series_s3": ("uploads mixed with what nobody recorded", "uploads torn by a record before the object"),
    "sleep_s3": ("untrue answers for bytes that were swept",),
    "wire": ("untrue answers when an unknown outcome counts as failed",),
    "wire_s3": ("untrue answers when a failed upload counts as done",),
}

_AUDIT, _BOOKS, _SERVED = "found by fsck", "books that disagree with the clients", "not served as it was sent"
_SITTING = (
    "acknowledged, but not spent",
    _AUDIT,
    _BOOKS,
    "neither used nor free",
    _SERVED,
    "refused for another's death",
)
_RACE = (
    _AUDIT,
    _BOOKS,
    "losers that the database did not refuse",
    "losers without a definite refusal",
    "racers without an answer",
    "signatures without exactly one winner",
)
_RELAYED = (
    "answers that a fault does not explain",
    _AUDIT,
    "free signatures that did not work",
    "signatures still pending after the recovery",
    "signatures whose uploads upstream are not their uses",
    "signatures with several winners",
    "unknown outcomes without Retry-After",
)
_SERIES = (
    _AUDIT,
    _BOOKS,
    _SERVED,
    "racers without a definite answer",
    "races with several winners",
    "races without a winner",
    "replays that were not refused",
    "replays that were stored",
    "torn parts that were accepted",
    "uploads that did not end as an asset",
)
_WIRE = (_AUDIT, _SERVED, "strange answers", "wrong answers", "wrong answers when sent again")
_LIMITS = (
    _BOOKS,
    "failures of the server",
    _AUDIT,
    "found by fsck with tiny limits",
    "listings of signatures that are not complete",
    "sweeps of too little or too much",
)
# The names of the checks that every run of a campaign reaches, however short it is. A run that lacks one of them does
# not hold: without its check a zero is no news. Checks that a short run may miss are not here.
ZEROS: Mapping[str, Collection[str]] = {
    "clients": (
        _AUDIT,
        _BOOKS,
        "healthy uploads slowed down",
        "healthy uploads that waited for a burst",
        "signatures that an abort has burned",
        "stalled connections that were not held",
        "uploads that were refused",
    ),
    "clock": (
        _AUDIT,
        "replays without a definite refusal",
        "spent signatures taken again",
        "uploads without a definite answer",
        "valid signatures refused",
        "versions that did not rise",
    ),
    "database": (
        "503 without Retry-After",
        "assets that are one too many or too few",
        _AUDIT,
        "no definite answer",
        "refusals too late",
        "servers that looked ready",
        "uploads acknowledged without a database",
        "uploads refused without a reason",
        "wrong answers",
        "wrong answers after recovery",
        "wrong reads",
    ),
    "failover": (*_SITTING, "forgotten uses taken again", "fresh signatures refused after the fence"),
    "history": ("anomalies", _AUDIT, "good histories rejected", "unexpected answers"),
    "io": (
        _AUDIT,
        "no definite answer",
        "short writes that failed",
        "signatures spent otherwise than once",
        "wrong answers",
        "wrong bytes",
    ),
    "kill": _SITTING,
    "kill_s3": _SITTING,
    "limits": _LIMITS,
    "limits_s3": _LIMITS,
    "model": ("disagreements with the model",),
    "points": (),  # one for each scene; a short run kills in some of them
    "power": (
        "acknowledged signatures that work again",
        "assets served other than answered",
        "disks that no server starts on",
        _AUDIT,
    ),
    "race": _RACE,
    "race_postgres": _RACE,
    "race_s3": _RACE,
    "relay": _RELAYED,
    "relay_points": _RELAYED,
    "relay_race": _RELAYED,
    "series": _SERIES,
    "series_s3": _SERIES,
    "sleep_s3": (*_SITTING, "sweeps that a sleeping server held up"),
    "wire": _WIRE,
    "wire_s3": _WIRE,
}


@dataclass(frozen=True, slots=True)
class Report:
    """One run of one campaign.

    `counts` is what was done and with which result, in the campaign's words. `inside` is how many faults hit something
    under way that they could break. `zeros` are the violations, which must all be 0. `controls` are the losses of the
    broken variants, which must all be above 0. Their names must be those of CONTROLS. The zeros must include those that
    ZEROS names.
    """

    campaign: str
    seed: int
    counts: Mapping[str, int]
    inside: int
    zeros: Mapping[str, int]
    controls: Mapping[str, int] = field(default_factory=dict)

    @property
    def mismatched(self) -> AbstractSet[str]:
        """Return the controls that were not tried although CONTROLS names them, and those that CONTROLS lacks."""
        return self.controls.keys() ^ CONTROLS.get(self.campaign, ())

    @property
    def unreached(self) -> AbstractSet[str]:
        """Return the checks that the run did not reach although ZEROS names them."""
        return {*ZEROS.get(self.campaign, ())} - self.zeros.keys()

    @property
    def holds(self) -> bool:
        complete = not self.mismatched and not self.unreached
        return complete and not any(self.zeros.values()) and all(self.controls.values())


# A campaign runs for about so many seconds with this seed: `proof/faults/campaigns/<name>.py` has one as `run`.
Campaign = Callable[[float, int], Report]
