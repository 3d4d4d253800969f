"""The process that does steps for another: a job comes through its connection, and what becomes of it goes back.

Nothing heavy is imported before the process has said which signals it leaves to the one that started it.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Literal

from indelible.errors import IndelibleError, PluginWarning
from indelible.files import full_disk, is_full_disk

if TYPE_CHECKING:
    from indelible.progress import Progress
    from indelible.study.run.step import Done, Job, Material

    Outcome = tuple[Literal["done"], Done] | tuple[Literal["failed"], tuple[Exception, str]]


def work(connection: Connection, threads: int) -> None:
    """Do jobs until the connection closes: first the World comes, then job after job.

    Sent back are pairs: ("progress", its arguments) on the way; then ("done", Done), or ("failed", the error and its
    traceback as text).
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C and what a scheduler sends go to all
        signal.signal(number, signal.SIG_IGN)  # the one that started this one decides
    sys.stdout = sys.stderr  # a result may stand on the other process's stdout, whatever a library prints
    warnings.simplefilter("ignore", PluginWarning)  # it has been said by the process that started this one
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    from indelible.study.run.step import Material

    torch.set_num_threads(threads)
    material = Material(connection.recv())
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(outcome(job, material, lambda *told: connection.send(("progress", told))))


def outcome(job: Job, material: Material, progress: Progress) -> Outcome:
    """Do a step here, and say what became of it in words that travel to another process, whatever it was."""
    from indelible.study.run.step import do_step

    try:
        return "done", do_step(job, material, progress)
    except Exception as error:  # of whatever kind: the other process decides
        trace = traceback.format_exc()
        told: Exception = full_disk(job.folder, error) if is_full_disk(error) else error
        if not isinstance(told, IndelibleError) and not _travels(told):
            told = RuntimeError(f"{type(error).__name__}: {error}")
        return "failed", (told, trace)


def done_or_raise(told: Outcome) -> Done:
    """What a step came to, in the process that asked for it; or what went wrong in it, raised with its traceback."""
    if told[0] == "done":
        return told[1]
    error, trace = told[1]
    error.add_note(trace)
    raise error


def _travels(error: Exception) -> bool:
    """Whether an error comes out of a pickle as what it was; some libraries' do not."""
    try:
        return str(pickle.loads(pickle.dumps(error))) == str(error)  # our own, just made
    except Exception:  # whatever its class does
        return False


def _end_with_parent() -> None:
    """A step must not go on writing when whoever runs the study is gone and another may have taken over."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
