"""One case at a time, under watch: what it came to, how long it took, what it wrote or reached beyond its folder."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indelible.errors import IndelibleError

HANG_SECONDS = 20.0
"""Of the processor."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.chmod", "os.chown", "os.utime"), (0,)),
    **dict.fromkeys(("os.rename", "os.link"), (0, 1)),
    "os.symlink": (1,),
}
_REACHES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "socket.connect")


@dataclass
class Outcome:
    """What became of a case: ``fine``, ``typed`` (an error of our own), ``traceback`` or ``hang``."""

    state: str
    said: str = ""
    where: str = ""
    outside: list[str] = field(default_factory=list)
    seconds: float = 0.0


class HangError(BaseException):
    """Too long; no Exception, so that nothing but the watch takes it."""


class Watch:
    """Watches this process for good: there is no way to take an audit hook away."""

    def __init__(self, inside: Path) -> None:
        self.inside = inside.resolve()
        self.seen: list[str] | None = None
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGVTALRM, self._ring)

    def run(self, case: Callable[[], Any]) -> Outcome:
        """Do a case; ``case`` gives an exit code if it is a command."""
        outcome = Outcome("fine")
        began = time.process_time()
        self.seen = []
        with (
            Path(os.devnull).open("w") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
                    code = case()
                outcome.state = "typed" if code == 2 else "fine"
            except IndelibleError as error:
                outcome.state, outcome.said = "typed", str(error)
            except HangError as error:
                outcome.state, outcome.where = "hang", _place(error)
            except BaseException as error:
                outcome.state, outcome.said, outcome.where = "traceback", _told(error), _place(error)
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        outcome.outside, self.seen = self.seen, None
        outcome.seconds = time.process_time() - began
        return outcome

    def _ring(self, *_: Any) -> None:
        raise HangError

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        if self.seen is None:
            return
        if event == "open":
            path, mode, flags = given
            if not (isinstance(flags, int) and flags & _WRITING) and not (mode and set(mode) & set("wax+")):
                return
            self._check(event, path)
        elif event in _CHANGES:
            for place in _CHANGES[event]:
                self._check(event, given[place])
        elif event in _REACHES:
            self._stop(f"{event} {given[:2]!r:.120}")

    def _check(self, event: str, path: Any) -> None:
        if isinstance(path, int) or path is None or self.seen is None:
            return
        place = Path(os.path.realpath(os.fsdecode(path)))
        if not place.is_relative_to(self.inside) and str(place) not in ("/dev/null", "/dev/full"):
            self._stop(f"{event} {place}")

    def _stop(self, what: str) -> None:
        """Note it, and let it not happen."""
        if self.seen is not None:
            self.seen.append(what)
        raise PermissionError(errno.EACCES, "stopped by the watch", what)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def _place(error: BaseException) -> str:
    """Where in the package it came from, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}indelible{os.sep}" in frame.filename]
    shown = [ours[-1], frames[-1]] if ours and ours[-1] is not frames[-1] else frames[-1:]
    return " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in shown)
