"""The command line. Each command is a module, imported when it is called, so that --help answers at once."""

import inspect
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from uponce import __version__
from uponce.core.errors import UponceError

# The help of each command. The module of a command has `run`, or `app` if the command has subcommands.
COMMANDS = {
    "serve": "Run the server.",
    "sign": "Make one signature for an upload.",
    "upload": "Sign and upload files, each with its own signature.",
    "settings": "Show every setting with its effective value and its source. Secrets are masked.",
    "doctor": "Check settings, disk, database and decoders, and say how to fix each problem.",
    "migrate": "Make or upgrade the database tables, as a starting server does.",
    "sweep": "Delete bytes that no asset names, and forget grants whose time is over.",
    "backup": "Copy the database, the media and the secret key into a folder.",
    "restore": "Restore a data folder from a backup.",
    "migrate-store": "Move to another database and storage, and compare every row and every file.",
    "fence": "Refuse every signature that may have been used since a copy of the database was made.",
    "fsck": "Compare the database with the stored files, and the ledger with itself.",
    "prove": "Test from outside whether signatures work once on a running server.",
    "demo": "Show on real media what uponce promises: start a server, upload, replay, race, tear, revoke and kill it.",
    "keys": "Create, import, list, revoke, rotate and renew API keys.",
    "clouds": "Create and list clouds, and pass their uploads on to an account.",
    "outbox": "Show and retry the work that a server does after a commit, and drop dead notifications.",
    "signatures": "Show, list and revoke signatures.",
}


def load_command(name: str) -> Any:
    """Import a command and return it in the form that typer runs."""
    module = import_module(f"uponce.cli.{name.replace('-', '_')}")
    app: typer.Typer = getattr(module, "app", None) or typer.Typer(add_completion=False)
    app.info.help = COMMANDS[name]
    if hasattr(module, "run"):
        app.command(name)(module.run)
    app.info.cls = _Group
    for command in app.registered_commands:  # typer keeps the line breaks of the source; the terminal breaks lines
        text = inspect.cleandoc((command.callback and command.callback.__doc__) or "")
        command.cls = _Command
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    return typer.main.get_command(app)


def _without_values(parameters: list[Any]) -> list[Any]:
    """Remove the type from the help of each switch: it would read as if the switch took a value."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_values(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # pydantic writes it before a text of typer
            raise


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _without_values(super().get_params(ctx))


class _Commands(_Group):
    """Lists the commands of COMMANDS, and imports only the command that is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=what) for name, what in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and load_command(name), rest


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="A self-hosted media upload server whose upload signatures work once. It speaks Cloudinary's upload API.",
    epilog="Start with `uponce demo` or `uponce serve`. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.",
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"uponce {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Run a command. Exit codes: 0 done, 1 refused, failed or interrupted by Ctrl-C, 2 usage."""
    try:
        app()
    except (UponceError, OSError) as error:
        from uponce.cli.options import os_refusal, without_signature

        message = os_refusal(error) if isinstance(error, OSError) else without_signature(error.for_operator)
        typer.secho(f"uponce: {message}", fg="red", err=True)
        sys.exit(1)
    except SystemExit as ended:
        sys.exit(ended.code if ended.code in (None, 0, 2) else 1)
