"""`uponce settings`: the effective settings and where each comes from."""

from uponce.cli.options import Data, Json, say
from uponce.config import effective


def run(data: Data = None, as_json: Json = False) -> None:
    """Show every setting with its effective value and its source. Secrets are masked."""
    rows = effective(data=data)
    width = max(len(row["name"]) for row in rows)
    lines = (
        f"{row['name']:<{width}} = {'' if row['value'] is None else row['value']}  ({row['source']})" for row in rows
    )
    say("\n".join(lines), rows, as_json)
