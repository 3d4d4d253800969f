"""How far long work is, and how long the rest of it will take.

Work speaks to a ``Progress``, or, where it is of several jobs one after another, asks for one by each job's name; a
study, whose pieces are planned before, to a ``Watcher``. Whether that is a display, a log or nobody is not its affair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

Progress = Callable[[int, int, str], None]
"""Told how much is done, of how much, and a note."""

Jobs = Callable[[str], AbstractContextManager[Progress | None]]
"""Given a job's name, whom to tell while it is done."""

PieceEnd = Literal["finished", "failed", "skipped"]

RANGE = (0.65, 1.5)
"""Shares of what is expected by arithmetic between which work mostly takes."""
SURE = 0.5
"""Power of RANGE that is left of it when work of the same kind has been timed for long."""
WEIGHT = 0.1
"""How much arithmetic weighs beside what was timed: as much as this share of the work being timed."""


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


class Span(NamedTuple):
    """Seconds between which something mostly takes."""

    low: float
    high: float

    @classmethod
    def about(cls, seconds: float) -> Span:
        """Around what arithmetic says."""
        return cls(RANGE[0] * seconds, RANGE[1] * seconds)


class Clock:
    """Where work of many pieces stands: which are under way, for how long, and how long all that is left will take.

    What is left takes as long as was expected, corrected by how long pieces of its kind took in truth, as far as any
    were timed, and else by how long all did. Arithmetic keeps some weight, so that the first seconds, which may be
    anything, do not turn the estimate over; and it is a range, which grows narrower with what was timed.
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

    def left(self) -> Span:
        """Seconds that all which is not over will take."""
        timed = [(one.piece.kind, one.share * one.piece.expected, one.spent) for one in self._running.values()]
        timed = [entry for entry in timed if entry[1]]
        timed += [(one.kind, one.expected, self._took[one.key]) for one in self.pieces if one.key in self._took]
        overall = _corrected(timed, WEIGHT * sum(one.expected for one in self.pieces), 1.0)
        low, high = [], []
        for piece in self.pieces:
            if piece.key in self.over:
                continue
            alike = [one.expected for one in self.pieces if one.kind == piece.kind]
            weight, of_kind = WEIGHT * sum(alike) / len(alike), [entry for entry in timed if entry[0] == piece.kind]
            whole = piece.expected * _corrected(of_kind, weight, overall)
            if one := self._running.get(piece.key):
                whole = whole * (1 - one.share) if one.share else max(0.0, whole - one.spent)
            seen = sum(entry[1] for entry in of_kind)
            unsure = max(SURE, weight / (weight + seen)) if weight else 1.0
            low.append(whole * RANGE[0] ** unsure)
            high.append(whole * RANGE[1] ** unsure)
        return Span(*(max(sum(end) / self._at_once, max(end, default=0.0)) for end in (low, high)))


def _corrected(timed: Sequence[tuple[str, float, float]], weight: float, otherwise: float) -> float:
    """How many times longer than expected work takes; ``otherwise`` counts as ``weight`` seconds that were timed."""
    expected = sum(entry[1] for entry in timed) + weight
    return (sum(entry[2] for entry in timed) + weight * otherwise) / expected if expected else otherwise


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
