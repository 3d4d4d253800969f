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


@dataclass
class _Running:
    """A piece under way: when it began, and how much of it is done."""

    piece: Piece
    began: float
    share: float = 0.0

    @property
    def spent(self) -> float:
        return time.monotonic() - self.began


class Clock:
    """Where work of many pieces stands: which are under way, for how long, and how long all that is left will take.

    What is left takes as long as was expected, corrected by how long pieces of its kind, or else of any, took in truth.
    ``done``: seconds that those took which are done already, by key; ``at_once``: how many are worked on at a time.
    """

    def __init__(self, pieces: Sequence[Piece], done: Mapping[str, float], at_once: int = 1) -> None:
        self.pieces = tuple(pieces)
        self.over = set(done)
        self._at_once = at_once
        self._running: dict[str, _Running] = {}
        self._took = dict(done)
        self._began = time.monotonic()

    def start(self, piece: Piece) -> None:
        """A piece begins."""
        self._running[piece.key] = _Running(piece, time.monotonic())

    def advance(self, piece: Piece, share: float) -> None:
        """That share of a piece under way is done."""
        self._running[piece.key].share = share

    def end(self, piece: Piece, seconds: float | None) -> None:
        """A piece is over, after so many seconds; None where it did not come to its end."""
        self._running.pop(piece.key, None)
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
        telling = [one for one in self._running.values() if one.share > SHARE_THAT_TELLS]
        # a piece's own pace tells more than that of those before it
        paced = {one.piece.kind for one in telling}
        timed = [
            (piece.kind, piece.expected, self._took[piece.key])
            for piece in self.pieces
            if piece.key in self._took and piece.kind not in paced
        ]
        timed += [(one.piece.kind, one.piece.expected, one.spent / one.share) for one in telling]
        overall = _factor(timed) or 1.0
        factors = {kind: _factor([entry for entry in timed if entry[0] == kind]) for kind, _, _ in timed}
        waiting = {
            piece.key: piece.expected * (factors.get(piece.kind) or overall)
            for piece in self.pieces
            if piece.key not in self.over
        }
        for key, one in self._running.items():
            waiting[key] = max(0.0, waiting[key] - one.spent)
        return max(sum(waiting.values()) / self._at_once, max(waiting.values(), default=0.0))


def _factor(timed: Sequence[tuple[str, float, float]]) -> float | None:
    """How many times longer than expected the work took; None where nothing was expected of it."""
    expected = sum(entry[1] for entry in timed)
    return sum(entry[2] for entry in timed) / expected if expected else None


class Watcher:
    """Someone to tell of work in many pieces, of which several may be under way; this one keeps it to itself."""

    def note(self, text: str) -> None:
        """Something that is no piece, e.g. that a model is being loaded."""

    def planned(self, clock: Clock) -> None:
        """All pieces are known, and what is done already; the clock is kept up by whoever tells."""

    def started(self, piece: Piece) -> None:
        """A piece begins."""

    def advanced(self, piece: Piece, done: int, total: int, note: str) -> None:
        """A piece under way has done so many of its own small steps."""

    def ended(self, piece: Piece, end: PieceEnd, seconds: float, note: str) -> None:
        """A piece is over; the note says what it found, or why it failed or was skipped."""
