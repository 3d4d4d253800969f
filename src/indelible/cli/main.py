"""Where the program is entered: every user mistake ends in one line and exit code 2, and no signal in a traceback.

Nothing heavy is imported until Ctrl-C, and the SIGTERM that schedulers send, end everything in one line as well.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from indelible.cli.terminal import say
from indelible.errors import IndelibleError, IndelibleWarning, Stopped
from indelible.launched import is_first

USER_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: what was typed after the program's name, or (None) what the process was given.

    Returns:
        the exit code: 0, 1 when a step of a study failed, 2 after a user mistake, 130 when interrupted, 143 when
        terminated.
    """
    with nullcontext() if is_first() else _unheard():
        return _main(arguments)


@contextmanager
def _unheard() -> Iterator[None]:
    """For those of launched processes that say and write nothing: the first says it. Signals end them at once, since a
    wait for the others cannot be interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _main(arguments: Sequence[str] | None) -> int:
    shown = warnings.showwarning
    warnings.showwarning = partial(_warn, shown)
    terminated: list[int] = []
    try:
        with _sigterm_as_ctrl_c(terminated):
            from indelible.cli.program import run

            return run(arguments)
    except IndelibleError as error:
        return _complain(str(error))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.ENAMETOOLONG):  # what nobody asks a path before it is used
            raise
        return _complain(f"{error.filename} cannot be used: {error.strerror}. Check its name and permissions.")
    except (Stopped, KeyboardInterrupt) as stop:
        say(f"{'Terminated' if terminated else 'Interrupted'}. {stop}".rstrip(), err=True)
        return 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    finally:
        warnings.showwarning = shown


@contextmanager
def _sigterm_as_ctrl_c(seen: list[int]) -> Iterator[None]:
    """SIGTERM ends what is in the block as Ctrl-C does, and is noted; a second one changes nothing any more."""
    alone = threading.current_thread() is threading.main_thread() and is_first()
    if not alone or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number: int, _: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        seen.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _warn(otherwise: Any, message: Warning | str, category: type[Warning], *where: Any) -> None:
    """What a user can mend is one line; other warnings are shown as ever."""
    if issubclass(category, IndelibleWarning):
        say(f"Warning: {message}", err=True)
    else:
        otherwise(message, category, *where)


def _complain(message: str) -> int:
    say(f"Error: {' '.join(message.split())}", err=True)
    return USER_ERROR
