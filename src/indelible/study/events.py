"""What happened in a run folder, a line each: appended as it happens, and sealed, so that a damaged line is known.

A process that is killed while it writes leaves half a line, and disks lose bits; that costs the line and no other.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from indelible.documents import from_json
from indelible.errors import StoreError
from indelible.files import disk_errors, read_bytes
from indelible.hashes import SEAL, seal_of, sealed

EventKind = Literal[
    "opened", "planned", "started", "finished", "reused", "taken", "failed", "skipped", "damaged", "closed"
]
_OF_ALL = {"event", "time", "pid"}
_FORMAT = "format"
"""A line with this key has a seal; those of older versions have neither, by which they are told from damaged ones."""
_TYPES: dict[str, Any] = {"event": str, "time": int | float, "pid": int, "step": str, "key": str, "steps": int}
_LATEST = 250_000_000_000
"""Seconds since the epoch, near the last year that Python's dates have."""


class Events:
    """The events in one file, which need not be there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, event: EventKind, about: dict[str, Any]) -> None:
        """Append one line. Raises a StoreError where the disk is full or may not be written."""
        line = {"event": event, "time": time.time(), "pid": os.getpid(), _FORMAT: 2, **about}
        text = json.dumps(sealed(line)) + "\n"
        with disk_errors(self.path.parent), self.path.open("a+b") as file:
            # A process killed while writing may have left a line without its end.
            if file.tell() and _last_byte(file.fileno()) != b"\n":
                text = "\n" + text
            file.write(text.encode("utf-8"))

    def read(self) -> tuple[list[dict[str, Any]], int]:
        """All whole events, oldest first, and how many lines are torn or damaged. Older versions sealed none.

        Raises:
            StoreError: the file cannot be read.
        """
        if not self.path.exists():
            return [], 0
        lines = read_bytes(self.path, "record of a study", StoreError).decode("utf-8", "replace").split("\n")
        found = [_event(line) for line in lines if line.strip()]
        whole = [event for event in found if event is not None]
        return whole, len(found) - len(whole)


def _event(line: str) -> dict[str, Any] | None:
    with suppress(ValueError):
        event = from_json(line)
        if not (isinstance(event, dict) and event.keys() >= _OF_ALL):
            return None
        typed = all(isinstance(event[name], kind) for name, kind in _TYPES.items() if name in event)
        if typed and 0 <= event["time"] < _LATEST:  # NaN is not
            seal = event.pop(SEAL, None)
            return event if seal == (seal_of(event) if _FORMAT in event else None) else None
    return None


def _last_byte(handle: int) -> bytes:
    os.lseek(handle, -1, os.SEEK_END)
    return os.read(handle, 1)
