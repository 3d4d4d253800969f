"""The one way by which the commands' words reach a terminal, on which no fact, generation or name has any power."""

from __future__ import annotations

import typer

from indelible.showing import visible


def say(text: str = "", *, err: bool = False) -> None:
    """Print a text and the end of its line to stdout or stderr."""
    typer.echo(visible(text), err=err)  # noqa: TID251
