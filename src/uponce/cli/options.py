"""Options and output that commands share."""

import re
from typing import Annotated, Any, Literal

import typer

Data = Annotated[
    str | None, typer.Option("--data", help="Data folder. [UPONCE_DATA, ./uponce-data]", show_default=False)
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the server, such as https://media.example. By default the server of the data folder.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Kind = Annotated[
    Literal["image", "video", "raw", "auto"],
    typer.Option("--type", help="Resource type: image, video, raw, or auto for what the bytes are."),
]


def print_json(value: Any) -> None:
    import msgspec

    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def parse_pairs(pairs: list[str]) -> dict[str, str]:
    """Return `name=value` words as a mapping; a value may contain `=`. Other words are a usage error."""
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"Write each parameter as NAME=VALUE, not {pair!r}.")
        if name in parsed:  # the error names no value: it could be a live signature
            raise typer.BadParameter(f"Write each parameter once. {name} is there twice.")
        parsed[name] = value
    return parsed


def without_signature(message: str) -> str:
    """Return an error without the signature that it quotes: one that fails here can be good with other parameters."""
    return re.sub(r"(Invalid Signature \w{8})\w+", r"\1…", message)
