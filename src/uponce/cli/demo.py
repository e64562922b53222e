"""`uponce demo`"""

import typer
from rich.console import Console

from uponce.demo import run as tell


def run(
    keep: bool = typer.Option(False, help="Keep the server's folder afterwards."),
    relay: bool = typer.Option(
        False, "--relay", help="Pass the uploads on to a second server, which plays the account."
    ),
) -> None:
    """Show on real media what uponce promises: start a server, upload, replay, race, tear, revoke and kill it."""
    raise typer.Exit(tell(Console(), keep, relay=relay))
