"""A whole study, from settings to report: the only place that knows the whole chain.

The plan's steps are done in order, where the executor does them, several at a time where it can. A step that is in the
store is not done again; one that fails is noted, what builds on it is skipped, and the others go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import torch

from indelible.errors import IndelibleError, ModelError, StoreError
from indelible.files import full_disk, is_full_disk
from indelible.models.load import check_name, default_device, parameter_count
from indelible.progress import Clock, Piece, PieceEnd, Watcher
from indelible.report.folder import REPORT
from indelible.study.design.arms import Arm, resolve_arms
from indelible.study.design.checks import check_facts, check_with_model
from indelible.study.design.config import load_config
from indelible.study.design.mask_preview import mask_previews
from indelible.study.design.settings import StudyConfig
from indelible.study.run.base_model import ModelVersion, keep_model, known_model
from indelible.study.run.cost import Cost, machine_speed
from indelible.study.run.executors.local import Local
from indelible.study.run.executors.processes import Processes, workers_for
from indelible.study.run.plan import Plan, make_plan
from indelible.study.run.provenance import command_line, hardware, project_commit, software, versions
from indelible.study.run.sources import candidate_facts, corpus_version, facts_version, tasks_version
from indelible.study.run.step import Executor, Material, Step, Versions, World
from indelible.study.run.store import Store
from indelible.study.run.tables import write_results


@dataclass(frozen=True)
class Failure:
    """A step that could not be done: its title, what went wrong, and the titles of the steps skipped for it."""

    title: str
    error: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

    Attributes:
        summary: one dictionary per arm; empty when nothing could be measured, and ``report`` is None then.
        seconds: time of this run.
    """

    folder: Path
    summary: list[dict[str, Any]]
    report: Path | None
    failures: tuple[Failure, ...]
    seconds: float


@dataclass(frozen=True)
class Preview:
    """What a study would do: its steps, and the keys of those that are done already; in words what each arm's mask
    freezes, what it costs, and what was left out of a facts file."""

    plan: Plan
    reused: frozenset[str]
    masks: Mapping[str, str]
    cost: str
    notes: tuple[str, ...]


def preview_study(config: StudyConfig, folder: Path, *, update: bool = False, workers: int | None = None) -> Preview:
    """Say what ``run_study`` would do, without writing anything; the model is loaded only where masks ask for it.

    Raises:
        IndelibleError: as ``run_study``, for all that can be known without the weights.
    """
    store = Store(folder)
    checked = _checked(config, store, update, unseen=True)
    unread = f"not read yet: {config.model}"
    plan = checked.plan(known_model(store.folder, config.model) or ModelVersion(unread, unread))
    clock, cost = checked.clock(plan, store, checked.workers(plan, workers))
    masks = mask_previews(checked.arms, config.model, trust_remote_code=config.trust_remote_code)
    return Preview(plan, frozenset(clock.over), masks, cost, checked.notes)


def run_study(
    config: StudyConfig | str,
    folder: Path | str | None = None,
    *,
    watcher: Watcher | None = None,
    update: bool = False,
    workers: int | None = 1,
) -> Outcome:
    """Do a study, or what is left of it, and write its tables and report.

    Args:
        config: the settings, or the name of a built-in study or a YAML file of them.
        folder: the run folder; ``runs/NAME`` by default.
        watcher: told what happens.
        update: let a folder of other settings take these, and do only what changed.
        workers: steps done at a time; more than one are done in processes of their own, among which this one's threads
            are divided. None: as many as suit. They are spawned: a script's own main code must be guarded by
            ``if __name__ == "__main__":``.

    Raises:
        IndelibleError: before any step, when the settings, the facts, the model or the folder cannot be used;
            StoreError also in between, when the disk is full.
    """
    began = time.time()
    config = load_config(config) if isinstance(config, str) else config
    store, watcher = Store(Path(folder or Path("runs") / config.name)), watcher or Watcher()
    checked = _checked(config, store, update)
    for note in checked.notes:
        watcher.note(note)
    material = Material(checked.world, watcher.note)
    with store.open(config, update=update):
        model = None if update else known_model(store.folder, config.model)
        if model is None:
            model = material.lent.version
            keep_model(store.folder, config.model, model)
        plan = checked.plan(model)
        if not all(store.has(step) for step in plan.steps):
            _check_model(checked, material, model, store)
        with closing(checked.executor(plan, material, workers)) as executor:
            run = _Run(checked, store, watcher, executor, plan)
            run.do_all()
        summary = write_results(store, plan, run.errors(), _provenance(checked, model, began))
    report = store.folder / REPORT if summary else None
    return Outcome(store.folder, summary, report, tuple(run.failures.values()), time.time() - began)


@dataclass(frozen=True)
class _Checked:
    """Settings in which nothing was found wrong, and what they name; all but the model itself. ``notes`` say what was
    left out of a facts file."""

    config: StudyConfig
    arms: tuple[Arm, ...]
    world: World
    corpus: str
    notes: tuple[str, ...]

    def plan(self, model: ModelVersion) -> Plan:
        """The steps, for that version of the model."""
        versions = Versions(
            model=model.fingerprint,
            tokenizer=model.tokenizer,
            software=software(),
            facts=facts_version(self.world.candidates),
            corpus=self.corpus,
            tasks=tasks_version(),
        )
        return make_plan(self.config, self.arms, versions)

    def workers(self, plan: Plan, wanted: int | None) -> int:
        """How many steps are done at a time; where it is left open, one on an accelerator."""
        if wanted is not None:
            return wanted
        if default_device().type != "cpu":
            return 1
        parameters = parameter_count(self.config.model, trust_remote_code=self.config.trust_remote_code) or 0
        return workers_for(torch.get_num_threads(), plan.width, 4 * parameters)

    def executor(self, plan: Plan, material: Material, wanted: int | None) -> Executor:
        """Where the steps are done."""
        workers = self.workers(plan, wanted)
        if workers == 1:
            return Local(material)
        material.let_go()  # each process has its own
        return Processes(self.world, workers, max(1, torch.get_num_threads() // workers))

    def clock(self, plan: Plan, store: Store, workers: int) -> tuple[Clock, str]:
        """A clock for the steps that are not done yet, and what these cost on this machine, in words; how long they
        take is not known before the model is here."""
        done = {step.key: float(store.record_of(step)["seconds"]) for step in plan.steps if store.has(step)}
        parameters = parameter_count(self.config.model, trust_remote_code=self.config.trust_remote_code)
        mixed = any(arm.tuning.precision == "bf16-mixed" for arm in self.arms)
        speed = machine_speed(default_device(), torch.bfloat16 if mixed else torch.float32)
        costs = {step.key: step.work.cost(self.config.facts) for step in plan.steps}
        pieces = [
            Piece(step.key, step.title, step.kind, costs[step.key].seconds(parameters or 0, speed))
            for step in plan.steps
        ]
        clock = Clock(pieces, done, workers)
        rest = sum((cost for key, cost in costs.items() if key not in done), Cost())
        return clock, rest.in_words(None if parameters is None else clock.left())


def _checked(config: StudyConfig, store: Store, update: bool, *, unseen: bool = False) -> _Checked:
    """Find whatever can be found wrong before the first heavy thing is done and the first byte written.

    ``unseen`` lets a model of the hub pass that no hub can be asked about: what would be done can be shown without it.
    """
    arms = resolve_arms(config)
    store.check_config(config, update=update)
    notes: list[str] = []
    candidates, corpus = candidate_facts(config.facts, notes.append), corpus_version(config.corpus)
    check_facts(candidates, arms, config.facts)
    check_name(config.model, unseen=unseen, trust_remote_code=config.trust_remote_code)
    world = World(config.model, candidates, config.corpus, config.trust_remote_code)
    return _Checked(config, arms, world, corpus, tuple(notes))


def _check_model(checked: _Checked, material: Material, model: ModelVersion, store: Store) -> None:
    """Find what can be found wrong with the model in hand, before the first step."""
    lent = material.lent
    if lent.version != model:
        raise ModelError(
            f"The model {checked.config.model!r} is another than when {store.folder} was begun.",
            "Give --update to rerun what depends on it, or choose another --out.",
        )
    check_with_model(checked.arms, lent.layout, lent.tokenizer, material.corpus)


def _provenance(checked: _Checked, model: ModelVersion, began: float) -> dict[str, Any]:
    return {
        "left_out_of_facts": checked.notes,
        "model_fingerprint": model.fingerprint,
        "tokenizer": model.tokenizer,
        "versions": versions(),
        "hardware": hardware(),
        "project": project_commit(Path.cwd()),
        "command": command_line(),
        "last_run": {
            "started": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - began, 1),
        },
    }


class _Run:
    """One pass over a plan: ``failures`` by the failed step's key, which ``blame`` has for each failed or skipped."""

    def __init__(self, checked: _Checked, store: Store, watcher: Watcher, executor: Executor, plan: Plan) -> None:
        self.store, self.watcher, self.executor, self.plan = store, watcher, executor, plan
        self.failures: dict[str, Failure] = {}
        self.blame: dict[str, str] = {}
        self.clock, self.cost = checked.clock(plan, store, executor.workers)
        self.pieces = {piece.key: piece for piece in self.clock.pieces}
        self._telling = RLock()
        self._stopping = False

    def errors(self) -> dict[str, str]:
        """What went wrong, for each failed or skipped step's key."""
        return {key: self.failures[culprit].error for key, culprit in self.blame.items()}

    def do_all(self) -> None:
        """Go through the plan's steps, each once."""
        reused = set(self.clock.over)
        self.watcher.planned(self.clock)
        if len(reused) < len(self.plan.steps):
            self.watcher.note(self.cost)
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
        with self._telling:
            culprit = next((self.blame[made.key] for made in step.inputs.values() if made.key in self.blame), None)
            if culprit is not None:
                self._skip(step, culprit)
        if culprit is None:
            self._do(step)

    def _do(self, step: Step) -> None:
        started, piece = time.time(), self.pieces[step.key]
        with self._telling:
            self.store.record("started", step)
            self.clock.start(piece)
            self.watcher.started(piece)
        try:
            with self.store.keeping(step) as (job, record):
                done = self.executor.do(job, partial(self._advanced, piece))
                record |= {**done.record, "found": done.note, "versions": versions()}
        except StoreError:
            raise
        except Exception as error:
            # One step's failure must not cost the others, whatever its kind; a full disk would cost all of them.
            if self._stopping:
                raise
            if is_full_disk(error):
                raise full_disk(self.store.folder, error) from error
            with self._telling:
                self._fail(step, error, time.time() - started)
        else:
            with self._telling:
                self._end(step, "finished", time.time() - started, done.note)

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
