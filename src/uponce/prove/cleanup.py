"""What is removed afterwards, and what cannot be."""

from dataclasses import dataclass
from urllib.parse import urlencode

from uponce.prove.site import Site

_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class CleanUp:
    """`left` are public_ids that may still be there, `why` is what the server said to removing the first of them."""

    removed: int
    left: tuple[str, ...] = ()
    why: str = ""


async def clean_up(site: Site) -> CleanUp:
    """Ask for the removal of each asset, until that is refused.

    A server that answers with a public_id outside our folder, whatever it means by that, is never asked to remove it.
    """
    assets = list(site.assets)
    ours = [asset for asset in assets if asset[1].startswith(f"{site.folder}/")]
    foreign = tuple(public_id for _, public_id in assets if not public_id.startswith(f"{site.folder}/"))
    removed = 0
    for number, (kind, public_id) in enumerate(ours):
        # Signed with `invalidate`, or it could be the very signature of an upload of that name in this second.
        body = urlencode(site.sign({"public_id": public_id, "invalidate": "true"})).encode()
        reply = await site.ask(site.request(f"{kind}/destroy", body, _FORM))
        result = reply.body.get("result") if reply.status == 200 else None
        if result not in ("ok", "not found"):
            left = tuple(public_id for _, public_id in ours[number:])
            return CleanUp(removed, foreign + left, reply.message or reply.problem or str(reply))
        removed += result == "ok"
    return CleanUp(removed, foreign, "they have other names than were asked for" if foreign else "")
