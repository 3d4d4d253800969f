"""Watchers that disturb the study they watch, and what its events say afterwards."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import psutil

from indelible.progress import Piece, PieceEnd, Watcher
from indelible.study.run.store import Store


def ends(folder: Path) -> Counter[str]:
    return Counter(event["event"] for event in Store(folder).events())


class Killer(Watcher):
    """Sends a signal to all workers as soon as the named step says how far it is; once."""

    def __init__(self, title: str, signal_number: int, worker: str) -> None:
        """``worker``: what the command line of a worker's process has in it."""
        self.title, self.signal, self.worker = title, signal_number, worker
        self.killed = 0
        self.ends: dict[str, tuple[PieceEnd, str]] = {}

    def advanced(self, piece: Piece, done: int, total: int, note: str) -> None:
        if piece.title == self.title and not self.killed:
            children = psutil.Process().children(recursive=True)
            workers = [child for child in children if self.worker in " ".join(child.cmdline())]
            assert workers
            for worker in workers:
                worker.send_signal(self.signal)
            self.killed = len(workers)

    def ended(self, piece: Piece, end: PieceEnd, seconds: float, note: str) -> None:
        self.ends[piece.title] = (end, note)


class Interrupter(Watcher):
    """Presses Ctrl-C when the first tuning starts."""

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background jobs ignore it

    def started(self, piece: Piece) -> None:
        if piece.kind == "tune":
            os.kill(os.getpid(), signal.SIGINT)
