"""A tiny study that was left alone once, copies of it to be disturbed, and what tells whether they ended like it.

A command runs in a process that was forked after everything had been imported, so that it costs what its work costs.
This process itself computes nothing: threads of torch would not survive the fork.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from indelible.cli.main import main
from indelible.hashes import HASHES
from indelible.report import report
from indelible.study.events import Events
from tiny_studies import study_settings, write_corpus, write_facts, write_study, write_taught_model

T = TypeVar("T")
PATIENCE = 300
"""Seconds of the processor that a command may take."""
SECONDS = {"seconds", "step_seconds", "fixed_seconds"}
TIMED = {"tuning.json", "log.jsonl"}
"""Files of a step with times in them, which differ from run to run."""
UNCAUGHT = 99


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or less the signal that killed it; and all that it said."""

    code: int
    said: str

    @property
    def last(self) -> str:
        """Its last line."""
        return (self.said.strip().splitlines() or [""])[-1]

    @property
    def fault(self) -> str:
        """What no command may end with; nothing where it did not."""
        wrong = "Traceback (most recent call last)" in self.said or self.code == UNCAUGHT
        return f"traceback: {self.last[:150]}" if wrong else ""


def forked(work: Callable[[], int | None]) -> Ended:
    """Do something in a process of its own, with all that it says read."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE, PATIENCE))
        code = UNCAUGHT
        try:
            code = work() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as said:
        text = said.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text)


class Ground:
    """Where studies are disturbed.

    Attributes:
        whole: the run folder of the undisturbed study.
        cache: what it left in the cache.
        chance: what everything random is drawn from.
    """

    def __init__(self, home: Path, seed: int) -> None:
        self.home, self.chance = home, random.Random(seed)
        self.whole, self.cache, self.temporary = home / "whole", home / "cache", home / "tmp"
        self.study, self._copies = home / "tiny.yaml", 0
        self._turns: dict[str, Iterator[int]] = {}
        self.temporary.mkdir()
        made = forked(self._make)
        assert made.code == 0, made.said
        self.steps = sorted(path.name for path in (self.whole / "steps").iterdir())
        self.reference = results(self.whole)

    def _make(self) -> int:
        write_taught_model(self.home / "model")
        write_facts(self.home / "facts.jsonl")
        write_corpus(self.home / "corpus.txt")
        settings = study_settings(self.home)
        settings["tuning"] |= {"steps": 2, "batch_size": 2, "heldout_examples": 4}
        settings["exam"] = {"every": 2}
        del settings["arms"][1]
        write_study(self.study, settings)
        return self._typed(["study", str(self.study), "--out", str(self.whole)], self.cache)

    def _typed(
        self, typed: Sequence[str], cache: Path, disturb: Callable[[], object] = lambda: None, workers: int = 1
    ) -> int:
        os.environ |= {"INDELIBLE_CACHE": str(cache), "TMPDIR": str(self.temporary)}
        tempfile.tempdir = str(self.temporary)
        vars(sys.modules["__main__"]).pop("__file__", None)  # or workers would import all that was imported here
        signal.signal(signal.SIGINT, signal.default_int_handler)
        report.shown = lambda run: []  # the page and its folders are written, without what takes seconds to draw
        disturb()
        return main([*typed, "--workers", str(workers)] if typed[0] == "study" else typed)

    def run(
        self,
        folder: Path,
        *,
        cache: Path | None = None,
        disturb: Callable[[], object] = lambda: None,
        workers: int = 1,
    ) -> Ended:
        """Run the study, or what is left of it, in a folder; ``disturb`` is called first in its process."""
        typed = ["study", str(self.study), "--out", str(folder)]
        return forked(lambda: self._typed(typed, cache or self.cache, disturb, workers))

    def type(self, *typed: object) -> Ended:
        """Run another command."""
        return forked(lambda: self._typed([*map(str, typed)], self.cache))

    def copy(self) -> Path:
        """A copy of the finished run; the one before is removed."""
        self._copies += 1
        for old in self.home.glob("copy-*"):
            shutil.rmtree(old)
        return Path(shutil.copytree(self.whole, self.home / f"copy-{self._copies}"))

    def partly(self) -> tuple[Path, str]:
        """A copy of which one step is to be done again, and all results to be written; and the step's name."""
        folder, step = self.copy(), self.chance.choice(self.steps)
        shutil.rmtree(folder / "steps" / step)
        self.unmake(folder)
        return folder, step

    def unmake(self, folder: Path) -> None:
        """Remove a run's tables and page, and the record of what was done in it."""
        for path in (
            *folder.glob("*.parquet"),
            *folder.glob("*.html"),
            folder / HASHES,
            folder / "events.jsonl",
        ):
            path.unlink()

    def turn(self, name: str, choices: Sequence[T]) -> T:
        """One of the choices, which take turns under that name in an order that was drawn: all come, and equally
        often."""
        if name not in self._turns:
            self._turns[name] = cycle(self.chance.sample(range(len(choices)), len(choices)))
        return choices[next(self._turns[name])]

    def gone_on(self, folder: Path) -> str:
        """Give the same command again, undisturbed; in words what is wrong then, or nothing."""
        ended = self.run(folder)
        if ended.code or ended.fault:
            return f"going on ended with {ended.code}: {ended.fault or ended.last[:150]}"
        return self.unlike(folder)

    def unlike(self, folder: Path) -> str:
        """In what a run that came to its end differs from the undisturbed one; nothing where it does not."""
        found = results(folder)
        lost = [name for name, content in self.reference.items() if not _equal(found.get(name), content)]
        left = [path.name for path in (*folder.rglob(".writing-*"), *self.temporary.glob("indelible-*"))]
        twice = done_twice(folder)
        said = [f"other {', '.join(lost)}" if lost else "", f"left {', '.join(left)}" if left else "", twice]
        return "; ".join(filter(None, said))


def results(folder: Path) -> dict[str, Any]:
    """What two runs of one study have to agree in: all but times."""
    found: dict[str, Any] = {path.name: pd.read_parquet(path) for path in folder.glob("*.parquet")}
    found = {name: table.drop(columns=list(SECONDS & {*table.columns})) for name, table in found.items()}
    found |= told(folder)
    for path in (folder / "steps").glob("*/step.json"):
        hashes = json.loads(path.read_text())["sha256"]
        found[path.parent.name] = {name: digest for name, digest in hashes.items() if name not in TIMED}
    return found


def told(folder: Path) -> dict[str, Any]:
    """The same of what a report writes."""
    lines = {name: json.loads((folder / name).read_text()) for name in ("summary.json", "claims.json")}
    return {name: [{k: v for k, v in line.items() if k not in SECONDS} for line in of] for name, of in lines.items()}


def _equal(one: Any, other: Any) -> bool:
    return one.equals(other) if isinstance(one, pd.DataFrame) else bool(one == other)


def done_twice(folder: Path) -> str:
    """Steps that were finished again although nothing had damaged them."""
    events, _ = Events(folder / "events.jsonl").read()
    finished = Counter(event["step"] for event in events if event["event"] == "finished")
    allowed = Counter(event["step"] for event in events if event["event"] == "damaged")
    twice = [step for step, times in finished.items() if times > 1 + allowed[step]]
    return f"done twice: {', '.join(twice)}" if twice else ""
