"""The auditor: whether what is stored is consistent, and whether it fits the answers that clients got.

It reads only files, rows and objects, by its own queries, so that no mistake of the server's code can hide from it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from proof.faults.place import Place, place_of


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a 200 promised to a client. It is kept outside of the server."""

    public_id: str
    asset_id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Findings:
    """One sentence for each broken promise. In a good campaign all four are empty.

    `lost`: acknowledged, and not there as acknowledged. `double`: the ledger, the audit and the catalog do not show
    exactly one use of a grant. `orphans`: bytes that no row names. `hollow`: rows whose bytes are not there, also those
    of an unfinished upload in several requests.
    """

    lost: tuple[str, ...]
    double: tuple[str, ...]
    orphans: tuple[str, ...]
    hollow: tuple[str, ...]

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))


def examine(where: Path | Place, receipts: Iterable[Receipt] = ()) -> Findings:
    """Examine a data folder with the default layout, or what a fleet shares. Servers may run, but no uploads."""
    place = place_of(where)
    assets = {
        asset_id: (public_id, blob_key, sha256)
        for asset_id, public_id, blob_key, sha256 in place.rows(
            "SELECT asset_id, public_id, blob_key, sha256 FROM assets"
        )
    }
    double = tuple(_double(place))
    sums = place.media.sums()
    spooled = {path.name: path for path in place.spooled()}
    unfinished = place.unfinished()
    parts, recorded = place.media.parts(), place.recorded_parts()
    ends = {key: max(stop for other, _, stop, _, _ in recorded if other == key) for key, *_ in recorded}
    named = {blob_key for _, blob_key, _ in assets.values()} | unfinished.keys()
    return Findings(
        lost=tuple(_lost(assets, receipts)),
        double=double,
        orphans=(
            *(f"blob {key} has no row" for key in sorted(sums.keys() - named)),
            *(f"{spooled[key]} is still spooled" for key in sorted(spooled.keys() - unfinished.keys())),
            *(f"part {name} is of no upload" for key, name in sorted(parts) if key not in unfinished),
        ),
        hollow=(
            *(
                f"asset {public_id} has no or other bytes"
                for public_id, blob_key, sha256 in assets.values()
                if sums.get(blob_key) != sha256
            ),
            *(
                f"the unfinished upload {key} lacks bytes that are recorded up to {end}"
                for key, end in unfinished.items()
                if key not in sums
                and ends.get(key, 0) < end
                and (key not in spooled or spooled[key].stat().st_size < end)
            ),
            *(
                f"part {name} of the unfinished upload {key} is not what was recorded"
                for key, _, _, name, sha256 in recorded
                if parts.get((key, name)) != sha256
            ),
        ),
    )


def count(where: Path | Place, what: str) -> int:
    """`count(folder, "assets")`, `count(folder, "audit WHERE event = 'refused'")`."""
    ((number,),) = place_of(where).rows(f"SELECT count(*) FROM {what}")
    return int(number)


def _lost(assets: dict[str, tuple[str, str, str]], receipts: Iterable[Receipt]) -> Iterable[str]:
    for receipt in receipts:
        public_id, _, sha256 = assets.get(receipt.asset_id, ("", "", ""))
        if (public_id, sha256) != (receipt.public_id, receipt.sha256):
            yield f"acknowledged asset {receipt.public_id} is {public_id or 'gone'} {sha256}"


def _double(place: Place) -> Iterable[str]:
    spends = "SELECT grant_key, count(*) AS spends FROM audit WHERE event IN ('spent', 'deleted') GROUP BY grant_key"
    for key, uses, spent in place.rows(
        f"SELECT grant_key, uses, coalesce(spends, 0) FROM grants LEFT JOIN ({spends}) AS spent USING (grant_key) "
        f"WHERE uses > 1 OR uses != coalesce(spends, 0)"
    ):
        yield f"grant {key.hex()} has {uses} uses, and the audit has {spent}"
    for key, spent in place.rows(
        f"SELECT grant_key, spends FROM ({spends}) AS spent WHERE grant_key NOT IN (SELECT grant_key FROM grants)"
    ):
        yield f"grant {key.hex()} is not in the ledger, but {spent} times in the audit"
    for (public_id,) in place.rows(
        "SELECT public_id FROM assets WHERE asset_id NOT IN (SELECT asset_id FROM audit WHERE event = 'spent')"
    ):
        yield f"asset {public_id} was made by no grant"
