"""Statements of the database that are broken on purpose."""

from dataclasses import replace

from uponce.adapters.database.statements import Statement, load


def changed(engine: str, name: str, text: str, other: str) -> Statement:
    """Return the statement with one part of its text replaced."""
    statement = load(engine)[name]
    assert text in statement.text, name
    return replace(statement, text=statement.text.replace(text, other, 1))


def change(engine: str, name: str, text: str, other: str) -> None:
    """Run that one instead, for the rest of this process."""
    load(engine)[name] = changed(engine, name, text, other)
