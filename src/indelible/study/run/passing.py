"""One pass over a plan: each step done where the executor does it, reused, skipped or noted as failed.

Steps are done in order, several at a time where the executor can. One that fails is noted, what builds on it is
skipped, and the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from threading import RLock

from indelible.errors import FactsError, IndelibleError, StoreError
from indelible.files import full_disk, is_full_disk
from indelible.numbers.words import counted
from indelible.progress import Clock, Piece, PieceEnd, Watcher
from indelible.study.run.plan import Plan
from indelible.study.run.provenance import versions
from indelible.study.run.step import Executor, Step
from indelible.study.run.store import Store


@dataclass(frozen=True)
class Failure:
    """A step that could not be done: its title, what went wrong, and the titles of the steps skipped for it."""

    title: str
    error: str
    skipped: tuple[str, ...] = ()


class Pass:
    """One pass over a plan: ``failures`` by the failed step's key, which ``blame`` has for each failed or skipped."""

    def __init__(self, store: Store, watcher: Watcher, executor: Executor, plan: Plan, clock: Clock) -> None:
        self.store, self.watcher, self.executor, self.plan, self.clock = store, watcher, executor, plan, clock
        self.failures: dict[str, Failure] = {}
        self.blame: dict[str, str] = {}
        self.pieces = {piece.key: piece for piece in clock.pieces}
        self._telling = RLock()
        self._stopping = False

    def errors(self) -> dict[str, str]:
        """What went wrong, for each failed or skipped step's key."""
        return {key: self.failures[culprit].error for key, culprit in self.blame.items()}

    def do_all(self, cost: str) -> None:
        """Go through the plan's steps, each once; the watcher is told the cost of what is not done yet."""
        reused = set(self.clock.over)
        self.store.record("planned", None, steps=len(self.plan.steps))
        self.watcher.planned(self.clock)
        if len(reused) < len(self.plan.steps):
            self.watcher.note(cost)
        for step in self.plan.steps:
            if step.key in reused:
                self.store.record("reused", step)
        rest = [step for step in self.plan.steps if step.key not in reused]
        if self.executor.workers == 1:
            for step in rest:
                self._do_or_skip(step)
        else:
            self._do_several_at_a_time(rest)

    def _do_several_at_a_time(self, rest: list[Step]) -> None:
        """Begin, whenever a worker is free, the step with the longest way to the end of what builds on it."""
        way: dict[str, float] = {}
        for step in reversed(rest):  # what builds on a step comes after it
            way[step.key] = way.get(step.key, 0.0) + self.pieces[step.key].expected
            for made in step.inputs.values():
                way[made.key] = max(way.get(made.key, 0.0), way[step.key])
        waiting = sorted(rest, key=lambda step: -way[step.key])
        at_work: dict[Future[None], Step] = {}
        with ThreadPoolExecutor(self.executor.workers) as threads:
            try:
                while waiting or at_work:
                    undone = {step.key for step in (*waiting, *at_work.values())}
                    ready = [s for s in waiting if not any(made.key in undone for made in s.inputs.values())]
                    for step in ready[: self.executor.workers - len(at_work)]:
                        waiting.remove(step)
                        at_work[threads.submit(self._do_or_skip, step)] = step
                    for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                        del at_work[future]
                        future.result()
            except BaseException:  # Ctrl-C, a full disk: nothing that is being done can be kept
                self._stopping = True
                self.executor.close()
                raise

    def _do_or_skip(self, step: Step) -> None:
        if self.store.has(step):  # it was not, until what it builds on was done again and came out as before
            with self._telling:
                self.store.record("reused", step)
                self.clock.end(self.pieces[step.key], None)
                self.watcher.ended(self.pieces[step.key], "finished", 0.0, "kept: it was built on the same")
            return
        with self._telling:
            culprit = next((self.blame[made.key] for made in step.inputs.values() if made.key in self.blame), None)
            if culprit is not None:
                self._skip(step, culprit)
        if culprit is None:
            self._do(step)

    def _do(self, step: Step) -> None:
        began, piece = time.monotonic(), self.pieces[step.key]
        with self._telling:
            self.store.record("started", step)
            self.clock.start(piece)
            self.watcher.started(piece)
        try:
            with self.store.keeping(step) as (job, record):
                done = self.executor.do(job, partial(self._advanced, piece))
                record |= {**done.record, "found": done.note, "predicted": piece.expected, "versions": versions()}
        except StoreError:
            raise
        except Exception as error:
            # One step's failure must not cost the others, whatever its kind; a full disk would cost all of them.
            if self._stopping:
                raise
            if isinstance(error, FactsError) and not step.inputs:  # said once, before all that would build on it
                raise
            if is_full_disk(error):
                raise full_disk(self.store.folder, error) from error
            with self._telling:
                self._fail(step, error, time.monotonic() - began)
        else:
            with self._telling:
                self._end(step, "finished", record.get("seconds", time.monotonic() - began), done.note)

    def _fail(self, step: Step, error: Exception, seconds: float) -> None:
        lines = str(error).strip().splitlines() or [""]
        what = str(error) if isinstance(error, IndelibleError) else f"{type(error).__name__}: {lines[0]}"
        self.failures[step.key] = Failure(step.title, what)
        self.blame[step.key] = step.key
        self.store.keep_failure(step, what, "".join(traceback.format_exception(error)))
        self._end(step, "failed", seconds, what)

    def _skip(self, step: Step, culprit: str) -> None:
        failed = self.failures[culprit]
        self.failures[culprit] = replace(failed, skipped=(*failed.skipped, step.title))
        self.blame[step.key] = culprit
        self.store.record("skipped", step)
        self._end(step, "skipped", 0.0, f"needs: {failed.title}")

    def _end(self, step: Step, end: PieceEnd, seconds: float, note: str) -> None:
        piece = self.pieces[step.key]
        self.clock.end(piece, seconds if end == "finished" else None)
        self.watcher.ended(piece, end, seconds, note)

    def _advanced(self, piece: Piece, done: int, total: int, note: str) -> None:
        with self._telling:
            self.clock.advance(piece, done / max(total, 1))
            self.watcher.advanced(piece, done, total, note)


def set_damaged_aside(store: Store, plan: Plan) -> Iterator[str]:
    """Have finished steps whose files are no longer as they were done again; in words, which, and what is not known."""
    for step in plan.steps:
        if names := store.damaged(step):
            place = store.set_aside(step)
            store.record("damaged", step, files=names)
            yield f"{step.title}: damaged ({', '.join(names)}), set aside in {place}; it is done again"
    if older := store.unhashed(plan.steps):
        yield f"{counted(older, 'finished step')} of an older version kept no hashes: only lengths of files are checked"
