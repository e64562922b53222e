"""After a restore from a backup: refuse every signature that may have been used since the backup was made."""

from uponce.app.services import Services


async def fence(services: Services) -> int:
    """The timestamp up to which signatures are refused from now on, whatever their key's window.

    Until this moment timestamps up to now + skew were accepted, and the uses since the backup are forgotten. So
    fresh signatures are refused too, for `skew` seconds: a pause, where a replay could not be taken back.
    """
    return await services.database.fence(services.limits.skew)
