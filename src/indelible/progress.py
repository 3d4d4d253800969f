"""How long work says how far it is.

Work speaks to a function or, where it is of several jobs one after another, asks for one by each job's name. Whether
that is a display, a log or nobody is not its business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, and a note."""
Jobs = Callable[[str], AbstractContextManager[Progress | None]]
"""Given a job's name, whom to tell while it is done."""


@contextmanager
def silently(job: str) -> Iterator[None]:
    """Nobody to tell."""
    yield None
