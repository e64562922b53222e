"""Options and output that commands share."""

from typing import Annotated, Any, Literal

import typer

Data = Annotated[
    str | None, typer.Option("--data", help="Data folder. [UPONCE_DATA, ./uponce-data]", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
Kind = Annotated[Literal["image", "video", "raw", "auto"], typer.Option("--type", help="image, video, raw or auto.")]


def print_json(value: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def parse_pairs(pairs: list[str]) -> dict[str, str]:
    """`name=value` words → a mapping; a value may contain `=`. Other words are a usage error."""
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name or name in parsed:
            raise typer.BadParameter(f"Write each parameter once, as NAME=VALUE, not {pair!r}.")
        parsed[name] = value
    return parsed
