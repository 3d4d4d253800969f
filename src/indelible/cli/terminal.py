"""The one way by which the commands' words reach a terminal, on which no fact, generation or name has any power."""

from __future__ import annotations

import sys

from indelible.showing import visible


def say(text: str = "", *, err: bool = False) -> None:
    """Print a text and the end of its line to stdout or stderr."""
    print(visible(text), file=sys.stderr if err else sys.stdout, flush=True)
