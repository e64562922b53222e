"""`uponce outbox`: show the work that transactions left for later, run dead work again, and give work up."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import typer

from uponce.app.ports import Effect
from uponce.app.relaying.reconcile import give_up
from uponce.app.services import Services
from uponce.cli.options import Data, Json, say_table
from uponce.cli.store import of_server, on_store
from uponce.config import Settings, load
from uponce.core.errors import NotFound
from uponce.core.signature import utc
from uponce.web.cloudinary.notifications import NOTIFY

_LAST = 2**63 - 1  # the greatest number in a database

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("list")
def list_(
    data: Data = None,
    limit: int = typer.Option(100, min=1, max=10_000, help="Most rows to show."),
    as_json: Json = False,
) -> None:
    """Show effects that are not done: dead ones first, then those that are due next.

    The server deletes a dead notification after UPONCE_NOTIFICATION_DAYS. The list says when.
    """
    settings = load(data=data)
    effects, seconds = on_store(settings, partial(_listed, settings=settings, limit=limit))
    rows = (_row(effect, seconds) for effect in effects)
    value = [_document(effect, seconds) for effect in effects]
    say_table(("id", "effect", "receiver", "subject", "state", "tries", "error"), rows, value, as_json)


async def _listed(services: Services, settings: Settings, limit: int) -> tuple[Sequence[Effect], int]:
    """Return the effects, and for how many seconds the server keeps dead notifications: by this shell, if unknown."""
    return await services.database.list_effects(limit), (await of_server(services, settings)).dead_seconds


def _kept_until(effect: Effect, seconds: int) -> int | None:
    """Return when a sweep deletes the effect, or None: a look-up of a relay stays, and so does what is not dead."""
    return effect.due_at + seconds if effect.dead and effect.name == NOTIFY else None


def _document(effect: Effect, seconds: int) -> dict[str, object]:
    of_claim = ("now", "waited")
    document = {name: value for name, value in asdict(effect).items() if name not in of_claim}
    return document | {"kept_until": _kept_until(effect, seconds)}


def _row(effect: Effect, seconds: int) -> tuple[str, ...]:
    until = _kept_until(effect, seconds)
    dead = "dead" if until is None else f"dead, kept until {utc(until)}"
    state = dead if effect.dead else f"due {utc(effect.due_at)}"
    return str(effect.id), effect.name, effect.receiver, effect.subject, state, str(effect.tries), effect.error


@app.command()
def retry(
    effect_id: int | None = typer.Argument(
        None, min=1, max=_LAST, metavar="ID", help="One effect. By default all that are dead."
    ),
    data: Data = None,
) -> None:
    """Make an effect due now. A running server then runs it."""
    count = on_store(load(data=data), lambda services: services.database.retry_effects(effect_id))
    if effect_id is not None and not count:
        raise NotFound(f"There is no effect {effect_id}. `uponce outbox list` shows all.")
    typer.echo(f"{count} effects are due now")


@app.command()
def drop(
    effect_id: int | None = typer.Argument(
        None, min=1, max=_LAST, metavar="ID", help="One dead notification. By default all that are dead."
    ),
    spend: bool = typer.Option(
        False, "--spend", help="ID is the look-up of a pending upload. Give that upload up: its signature is spent."
    ),
    data: Data = None,
) -> None:
    """Delete dead notifications, whose receivers did not accept them for a day. Uploads and assets stay.

    With --spend, end the look-ups of one upload that is pending in an account. Its signature counts as spent, whether
    or not the account has the asset, so it never makes a second one.
    """
    if spend:
        _give_up(load(data=data), effect_id)
        return
    count = on_store(load(data=data), lambda services: services.database.drop_dead_effects(NOTIFY, effect_id))
    if effect_id is not None and not count:
        raise NotFound(f"There is no dead notification {effect_id}. `uponce outbox list` shows all.")
    typer.echo(f"{count} dead notifications are dropped")


def _give_up(settings: Settings, effect_id: int | None) -> None:
    if effect_id is None:
        raise typer.BadParameter("--spend needs the ID of a look-up, as `uponce outbox list` shows it.")
    relay = on_store(settings, lambda services: give_up(services, effect_id))
    if relay is None:
        raise NotFound(f"There is no pending upload with the look-up {effect_id}. `uponce outbox list` shows all.")
    typer.echo(
        f"the upload {relay.id} is given up and its signature is spent. {relay.target.account} may have its asset"
    )
