"""Processes that do the cases, each in a folder of its own; where one is lost in a case, another goes on."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any

import psutil

from fuzz.material import Desk, environment
from fuzz.watch import Outcome, Watch

LOST_SECONDS = 60.0
"""Of the processor, for one case that no signal ends: its process is ended from outside."""
SPARE_BYTES = 6 * 2**30
"""That a process may have beyond what it starts with."""


def targets() -> dict[str, Any]:
    """What makes the cases of each target."""
    from fuzz import deltas, targets

    return {
        **{"study-file": targets.study_file, "study-options": targets.study_options, "set": targets.assignments},
        **{"claims": targets.claims_file, "facts": targets.facts_file, "data": targets.data_file},
        **{"run-folder": targets.run_folder, "paths": targets.paths, "words": targets.words},
        **{"delta": deltas.delta_file, "adapter": deltas.adapter_folder},
    }


def work(kept: Path, inside: Path, seed: int, pipe: Connection, current: Any) -> None:
    """Do pieces of cases as they are asked for, until there are no more."""
    desk, watch = begin(kept, inside)
    makers = targets()
    own = psutil.Process()
    while (asked := pipe.recv()) is not None:
        target, numbers = asked
        for number in numbers:
            with current.get_lock():
                current[0], current[1] = number, sum(own.cpu_times()[:2])
            case, _ = makers[target](desk, generator(seed, target, number))
            outcome = watch.run(case)
            pipe.send((target, number, outcome))
        pipe.send(None)


def begin(kept: Path, inside: Path) -> tuple[Desk, Watch]:
    """A process's own folder, and the watch over it. What is imported late is imported now, so that no case pays."""
    (inside / "work").mkdir(parents=True)
    os.environ.update(environment(inside))
    tempfile.tempdir = None
    os.chdir(inside / "work")
    sys.dont_write_bytecode = True
    import torch
    import trl  # noqa: F401

    from indelible.cli.program import app  # noqa: F401
    from indelible.study.run.run import preview_study  # noqa: F401

    torch.set_num_threads(1)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, used + SPARE_BYTES))
    return Desk(kept, inside / "work"), Watch(inside)


def generator(seed: int, target: str, number: int) -> Random:
    return Random(f"{seed} {target} {number}")


class Workers:
    """Processes that do the cases; one that is lost in a case is ended, and another takes what is left."""

    def __init__(self, count: int, kept: Path, folder: Path, seed: int) -> None:
        self.kept, self.folder, self.seed = kept, folder, seed
        self.context = multiprocessing.get_context("spawn")
        self.started = 0
        self.processes = [self._start() for _ in range(count)]

    def _start(self) -> Any:
        self.started += 1
        ours, theirs = self.context.Pipe()
        current = self.context.Array("d", 2)
        inside = self.folder / f"worker{self.started}"
        process = self.context.Process(target=work, args=(self.kept, inside, self.seed, theirs, current), daemon=True)
        process.start()
        theirs.close()
        return [process, ours, current, None]

    def do(self, pieces: list[tuple[str, list[int]]]) -> Iterator[tuple[str, int, Outcome]]:
        """What became of each case, as it is known."""
        for one in self.processes:
            self._give(one, pieces)
        while busy := {one[1]: one for one in self.processes if one[3]}:
            for pipe in wait(list(busy), timeout=2):
                one = busy[pipe]
                try:
                    found = pipe.recv()
                except (EOFError, OSError):  # it died, or was ended
                    number = int(one[2][0])
                    yield one[3][0], number, Outcome("traceback", f"the process ended ({one[0].exitcode})", "process")
                    left = (one[3][0], [other for other in one[3][1] if other > number])
                    self.processes[self.processes.index(one)] = fresh = self._start()
                    self._give(fresh, [left] if left[1] else pieces)
                    continue
                if found is None:
                    self._give(one, pieces)
                else:
                    yield found
            for one in self.processes:
                self._end_if_lost(one)
        for one in self.processes:
            one[1].send(None)
            one[0].join(30)

    def _give(self, one: Any, pieces: list[tuple[str, list[int]]]) -> None:
        one[3] = pieces.pop(0) if pieces else None
        if one[3]:
            one[1].send(one[3])

    def _end_if_lost(self, one: Any) -> None:
        with contextlib.suppress(psutil.Error):
            spent = sum(psutil.Process(one[0].pid).cpu_times()[:2]) - one[2][1]
            if one[3] and one[2][1] and spent > LOST_SECONDS:
                one[0].kill()


def write_material(kept: Path, inside: Path) -> None:
    """Write what is damaged, in a process that has libraries keep what they keep inside."""
    process = multiprocessing.get_context("spawn").Process(target=_write, args=(kept, inside))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(1)


def _write(kept: Path, inside: Path) -> None:
    os.environ.update(environment(inside))
    from fuzz import material

    material.write(kept)
