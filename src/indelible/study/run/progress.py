"""How a running study tells what it does, and how long the rest will take.

The study speaks to a Watcher; whether that is a display, log lines or nothing is not its business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

from indelible.study.design.plan import Step

StepEnd = Literal["finished", "failed", "skipped"]

# How long steps of each kind take next to one another, where none of the kind has been timed yet.
_WEIGHTS: Mapping[str, float] = {
    "select": 2.0,
    "base-probe": 1.0,
    "bystanders": 0.02,
    "edit": 4.0,
    "edited-probe": 1.0,
    "tune": 6.0,
    "explain": 10.0,
}


class Watcher(Protocol):
    """Someone to tell."""

    def note(self, text: str) -> None:
        """Something that is not a step, e.g. that the model is being loaded."""

    def planned(self, steps: Sequence[Step], reused: Collection[str], seconds: Mapping[str, float]) -> None:
        """The steps of the study, keys of those already finished, and mean seconds by kind of those."""

    def started(self, step: Step) -> None:
        """A step begins."""

    def advanced(self, done: int, total: int, note: str) -> None:
        """The current step has done so many of its own small steps."""

    def ended(self, step: Step, end: StepEnd, seconds: float, note: str) -> None:
        """A step is over; the note says what it found, or why it failed or was skipped."""


class Silent:
    """Nobody to tell."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def planned(self, steps: Sequence[Step], reused: Collection[str], seconds: Mapping[str, float]) -> None:
        """Ignore it."""

    def started(self, step: Step) -> None:
        """Ignore it."""

    def advanced(self, done: int, total: int, note: str) -> None:
        """Ignore it."""

    def ended(self, step: Step, end: StepEnd, seconds: float, note: str) -> None:
        """Ignore it."""


def seconds_left(
    waiting: Sequence[str], timed: Mapping[str, float], current: str | None, spent: float, share: float
) -> float | None:
    """How long a study will still take.

    Args:
        waiting: kinds of the steps that have not begun.
        timed: mean seconds of the kinds of which a step has ended.
        current: kind of the running step.
        spent: seconds that it has taken so far.
        share: how much of it is done, 0 to 1.

    Returns:
        seconds, or None as long as nothing is known to go by.
    """
    known = dict(timed)
    if current is not None and share > 0.05:
        known[current] = spent / share
    if not known:
        return None
    per_weight = sum(known.values()) / sum(_WEIGHTS[kind] for kind in known)
    expected = {kind: known.get(kind, weight * per_weight) for kind, weight in _WEIGHTS.items()}
    rest = 0.0 if current is None else max(0.0, expected[current] - spent)
    return rest + sum(expected[kind] for kind in waiting)
