"""What is seen of long work while it goes on: bars on a terminal and in a notebook, lines in a log; all on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars

from indelible.launched import is_first
from indelible.numbers.words import between, counted, duration
from indelible.progress import Clock, Piece, PieceEnd, Progress, Watcher
from indelible.showing import visible

LOG_EVERY = 30.0
"""Seconds between two lines of a log that say how far one piece of work is."""

_SIGNS: Mapping[PieceEnd, str] = {"finished": "done", "failed": "FAILED", "skipped": "skipped"}


def _times(clock: Clock) -> str:
    """Time so far and time left, in words."""
    so_far = duration(clock.passed)
    if len(clock.over) == len(clock.pieces):
        return so_far
    return f"{so_far}, about {between(clock.left())} left"


class _Log:
    """Lines for a log, those on one piece of work no oftener than every LOG_EVERY seconds after the last."""

    def __init__(self, console: Console, said: float) -> None:
        self._console = console
        self._said = said

    def say(self, text: str) -> None:
        self._console.print(visible(text), markup=False, highlight=False, soft_wrap=True)
        self._said = time.monotonic()

    def now_and_then(self, text: str, done: int, total: int) -> None:
        if time.monotonic() - self._said >= LOG_EVERY:
            self.say(f"{text} ({done / max(total, 1):.0%} of this)")


class LogWatcher(Watcher):
    """One line when a step starts, one when it ends, and in between one now and then, for logs."""

    def __init__(self, console: Console) -> None:
        self._log = _Log(console, time.monotonic())
        self._clock = Clock([], {})

    def note(self, text: str) -> None:
        self._log.say(text)

    def planned(self, clock: Clock) -> None:
        self._clock = clock
        self._log.say(f"{counted(len(clock.pieces), 'step')}, {len(clock.over)} done already")

    def started(self, piece: Piece) -> None:
        self._log.say(f"[{self._clock.place(piece)}] {piece.title} ...")

    def advanced(self, piece: Piece, done: int, total: int, note: str) -> None:
        self._log.now_and_then(f"[{self._clock.place(piece)}] {note}", done, total)

    def ended(self, piece: Piece, end: PieceEnd, seconds: float, note: str) -> None:
        said = f"{_SIGNS[end]}: {piece.title} ({duration(seconds)}): {note}"
        self._log.say(f"[{self._clock.place(piece)}] {said} [{_times(self._clock)}]")


class LiveWatcher(Watcher):
    """``bars``: one for the whole study and one for each step under way, with finished steps listed above them."""

    def __init__(self, console: Console) -> None:
        self._clock = Clock([], {})
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._whole = self.bars.add_task("study", total=None, note="")
        self._steps: dict[str, TaskID] = {}

    def note(self, text: str) -> None:
        self.bars.update(self._whole, note=visible(text))

    def planned(self, clock: Clock) -> None:
        self._clock = clock
        self.bars.update(self._whole, total=len(clock.pieces), completed=len(clock.over))
        self._tick()

    def started(self, piece: Piece) -> None:
        self.bars.update(self._whole, description=f"step {self._clock.place(piece)}")
        self._steps[piece.key] = self.bars.add_task(visible(piece.title), total=None, note="")
        self._tick()

    def advanced(self, piece: Piece, done: int, total: int, note: str) -> None:
        self.bars.update(self._steps[piece.key], completed=done, total=total, note=visible(note))
        self._tick()

    def ended(self, piece: Piece, end: PieceEnd, seconds: float, note: str) -> None:
        line = f"{_SIGNS[end]:>7}  {piece.title} ({duration(seconds)}): {note}"
        self.bars.console.print(visible(line), markup=False, highlight=False, style="red" if end == "failed" else None)
        self.bars.update(self._whole, completed=len(self._clock.over))
        if piece.key in self._steps:  # skipped ones never began
            self.bars.remove_task(self._steps.pop(piece.key))
        self._tick()

    def _tick(self) -> None:
        self.bars.update(self._whole, note=_times(self._clock))


@contextmanager
def watching() -> Iterator[Watcher]:
    """A watcher that suits stderr: live bars on a terminal, lines elsewhere."""
    console = Console(file=sys.stderr)
    if _draws_over(console):
        live = LiveWatcher(console)
        with live.bars:
            yield live
    else:
        yield LogWatcher(console)


@contextmanager
def shown_study() -> Iterator[Watcher]:
    """As ``watching``, on a terminal and in a notebook, for who calls from Python; nothing elsewhere."""
    with watching() if _is_seen(Console(file=sys.stderr)) else nullcontext(Watcher()) as watcher:
        yield watcher


@contextmanager
def shown(job: str) -> Iterator[Progress | None]:
    """As ``counting``, on a terminal and in a notebook, for who calls from Python; nothing elsewhere."""
    with counting(job) if _is_seen(Console(file=sys.stderr)) else nullcontext() as progress:
        yield progress


def _is_seen(console: Console) -> bool:
    """Whether someone looks on, at this one of the processes that were launched."""
    return is_first() and (console.is_terminal or console.is_jupyter)


def _draws_over(console: Console) -> bool:
    """Whether bars can be drawn over: ipywidgets does that in a notebook; without it there are lines."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


@contextmanager
def counting(job: str, took: dict[str, float] | None = None) -> Iterator[Progress]:
    """A single bar for a single job, or lines where there is no terminal; the block gets the function that moves it.

    ``took`` is given the job's seconds under its name.
    """
    console, began = Console(file=sys.stderr), time.monotonic()
    if _draws_over(console):
        first, last = (TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[note]"))
        with Bars(first, BarColumn(), TaskProgressColumn(), last, console=console, transient=True) as bars:
            task = bars.add_task(job, total=None, note="")
            yield lambda done, total, note: bars.update(task, completed=done, total=total, note=visible(note))
    else:
        log = _Log(console, -math.inf)
        yield lambda done, total, note: log.now_and_then(f"{job}: {note}", done, total)
    if took is not None:
        took[job] = time.monotonic() - began
