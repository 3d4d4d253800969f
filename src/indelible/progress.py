"""How far long work is, and how long the rest of it will take.

Work speaks to a ``Progress``, or, where it is of several jobs one after another, asks for one by each job's name; a
study, whose pieces are planned before, to a ``Watcher``. Whether that is a display, a log or nobody is not its affair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, and a note."""

Jobs = Callable[[str], AbstractContextManager[Progress | None]]
"""Given a job's name, whom to tell while it is done."""

PieceEnd = Literal["finished", "failed", "skipped"]

SHARE_THAT_TELLS = 0.05
"""Share of a piece that has to be done before its own pace is gone by."""


def silent(done: int, total: int, note: str) -> None:
    """The Progress of work whose whole is told elsewhere, or to nobody."""


@contextmanager
def silently(job: str) -> Iterator[None]:
    """Nobody to tell of a job."""
    yield None


@dataclass(frozen=True)
class Piece:
    """One piece of long work.

    Attributes:
        title: what to call it on a screen.
        kind: pieces of one kind are expected to be off by the same factor.
        expected: seconds that it takes by arithmetic.
    """

    key: str
    title: str
    kind: str
    expected: float


class Clock:
    """Where work of many pieces stands: which is under way, for how long, and how long all that is left will take.

    What is left takes as long as was expected, corrected by how long pieces of its kind, or else of any, took in truth.
    ``done``: seconds that those took which are done already, by key.
    """

    def __init__(self, pieces: Sequence[Piece], done: Mapping[str, float]) -> None:
        self.pieces = tuple(pieces)
        self.over = set(done)
        self.current: Piece | None = None
        self.share = 0.0
        self._took = dict(done)
        self._began = self._current_began = time.monotonic()

    def start(self, piece: Piece) -> None:
        """A piece begins."""
        self.current, self.share, self._current_began = piece, 0.0, time.monotonic()

    def end(self, piece: Piece, seconds: float | None) -> None:
        """A piece is over, after so many seconds; None where it did not come to its end."""
        self.current = None
        self.over.add(piece.key)
        if seconds is not None:
            self._took[piece.key] = seconds

    def place(self, piece: Piece) -> str:
        """Which of how many it is: "3/12"."""
        return f"{self.pieces.index(piece) + 1}/{len(self.pieces)}"

    @property
    def passed(self) -> float:
        """Seconds since the work began."""
        return time.monotonic() - self._began

    def left(self) -> float:
        """Seconds that all which is not over will take."""
        timed = [
            (piece.kind, piece.expected, self._took[piece.key]) for piece in self.pieces if piece.key in self._took
        ]
        spent = time.monotonic() - self._current_began
        if self.current is not None and self.share > SHARE_THAT_TELLS:
            # its own pace tells more than that of those before it
            timed = [entry for entry in timed if entry[0] != self.current.kind]
            timed.append((self.current.kind, self.current.expected, spent / self.share))
        overall = _factor(timed) or 1.0
        factors = {kind: _factor([entry for entry in timed if entry[0] == kind]) for kind, _, _ in timed}
        waiting = {piece.key: piece.expected * (factors.get(piece.kind) or overall) for piece in self.pieces}
        if self.current is not None:
            waiting[self.current.key] = max(0.0, waiting[self.current.key] - spent)
        return sum(seconds for key, seconds in waiting.items() if key not in self.over)


def _factor(timed: Sequence[tuple[str, float, float]]) -> float | None:
    """How many times longer than expected the work took; None where nothing was expected of it."""
    expected = sum(entry[1] for entry in timed)
    return sum(entry[2] for entry in timed) / expected if expected else None


class Watcher:
    """Someone to tell of work in many pieces; this one keeps it to itself."""

    def note(self, text: str) -> None:
        """Something that is no piece, e.g. that a model is being loaded."""

    def planned(self, clock: Clock) -> None:
        """All pieces are known, and what is done already; the clock is kept up by whoever tells."""

    def started(self, piece: Piece) -> None:
        """A piece begins."""

    def advanced(self, done: int, total: int, note: str) -> None:
        """The current piece has done so many of its own small steps."""

    def ended(self, piece: Piece, end: PieceEnd, seconds: float, note: str) -> None:
        """A piece is over; the note says what it found, or why it failed or was skipped."""
