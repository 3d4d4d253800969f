"""A whole study, from settings to report: the only place that knows the whole chain.

Everything that can be found wrong is found before the first step; how steps are gone through, passing.py says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from indelible.errors import ConfigError, ModelError, StoreError
from indelible.exam.kind import check_kinds
from indelible.launched import processes
from indelible.models.load import check_name, default_device, parameter_count
from indelible.numbers.words import counted, duration
from indelible.progress import Clock, Piece, Watcher
from indelible.report.folder import REPORT
from indelible.study.design.arms import Arm, resolve_arms
from indelible.study.design.checks import check_with_model, checked_facts
from indelible.study.design.config import load_config
from indelible.study.design.mask_preview import fetches_nothing, mask_previews
from indelible.study.design.settings import Share, StudyConfig
from indelible.study.run.base_model import LentModel, ModelVersion, keep_model, known_model
from indelible.study.run.cost import Cost, Speed, measured_speed
from indelible.study.run.executors.cluster import Cluster
from indelible.study.run.executors.local import Local
from indelible.study.run.executors.processes import Processes, workers_for
from indelible.study.run.executors.threads import computing_with
from indelible.study.run.executors.together import Group, Together, check_launched, together
from indelible.study.run.passing import Failure, Pass, set_damaged_aside
from indelible.study.run.plan import NO_ARMS, Plan, make_plan
from indelible.study.run.provenance import provenance, software
from indelible.study.run.sources import candidate_facts, corpus_version, facts_version, tasks_version
from indelible.study.run.step import Executor, Material, Versions, World
from indelible.study.run.store import Store
from indelible.study.run.tables import predicted, write_results
from indelible.tuning.settings import TuningSettings
from indelible.watching import shown_study


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

    def __repr__(self) -> str:
        failed = f", {counted(len(self.failures), 'step')} failed" if self.failures else ""
        where = self.report or self.folder
        return f"Outcome({counted(len(self.summary), 'arm')}{failed}, {duration(self.seconds)}: {where})"

    def to_frame(self) -> pd.DataFrame:
        """The summary, one row per arm."""
        return pd.DataFrame(self.summary)


@dataclass(frozen=True)
class Preview:
    """What a study would do: its settings, with the number of facts to edit; its steps, and the keys of those that are
    done already; in words what each arm's mask freezes, what it costs, and what was left out of a facts file."""

    config: StudyConfig
    plan: Plan
    reused: frozenset[str]
    masks: Mapping[str, str]
    cost: str
    notes: tuple[str, ...]


def preview_study(
    config: StudyConfig,
    folder: Path,
    *,
    update: bool = False,
    workers: int | None = None,
    on: str | None = None,
    each: Share | None = None,
    part: tuple[int, int] | None = None,
    take: Sequence[Path | str] = (),
) -> Preview:
    """Say what ``run_study`` would do, without writing anything. What it costs is measured here, or with ``on`` by the
    first worker of that cluster.

    Raises:
        IndelibleError: as ``run_study``, for all that can be known without the weights.
    """
    _others(take)  # what is in them is not known before the model is here
    store = Store(folder)
    checked = _checked(config, store, update, unseen=True)
    there = None if on is None else checked.cluster(on, each, workers, Watcher().note, store)
    with nullcontext() if there is None else closing(there):
        plan = checked.plan_without_weights(store, None if there is None else there.software)
        plan = plan if part is None else plan.part(*part)
        if not plan.runs:
            return Preview(checked.config, plan, frozenset(), {}, NO_ARMS, checked.notes)
        done = all(store.has(step) for step in plan.steps)
        if there is not None:
            at_once, speed = there.workers, None if done else there.speed(checked.tunings)
        else:
            at_once, threads = checked.workers_and_threads(plan, workers, store)
            lent = None if done or not fetches_nothing(config.model) else Material(checked.world).lent
            speed = None if lent is None else checked.speed(lent, threads)
        clock, cost = checked.clock(plan, store, at_once, speed, there)
    masks = mask_previews(checked.arms, config.model, trust_remote_code=config.trust_remote_code)
    return Preview(checked.config, plan, frozenset(clock.over), masks, cost, checked.notes)


def plan_of(config: StudyConfig, store: Store) -> Plan:
    """The steps of the study that a run folder was made for, of which some may be done; the model is not loaded."""
    return _checked(config, store, update=False, unseen=True).plan_without_weights(store)


def run_study(
    config: StudyConfig | Path | str,
    folder: Path | str | None = None,
    *,
    watcher: Watcher | None = None,
    update: bool = False,
    workers: int | None = 1,
    on: str | None = None,
    each: Share | None = None,
    part: tuple[int, int] | None = None,
    take: Sequence[Path | str] = (),
) -> Outcome:
    """Do a study, or what is left of it, and write its tables and report.

    Args:
        config: the settings, or the name of a built-in study or a YAML file of them.
        folder: the run folder; ``runs/NAME`` by default.
        watcher: told what happens; by default bars are shown on a terminal and in a notebook.
        update: let a folder of other settings take these, and do only what changed.
        workers: steps done at a time; more than one are done in processes of their own, among which this one's threads
            are divided. None: as many as suit. They are spawned: a script's own main code must be guarded by
            ``if __name__ == "__main__":``.
        on: "ray" does the steps on the Ray cluster that Python is connected to or RAY_ADDRESS names, or else on one
            that is started on this machine; an address ("ray://head:10001") on that one. The run folder has to lie
            where all machines see it.
        each: what one worker takes of the cluster.
        part: (number from 1, of how many): do and report the arms of that part alone.
        take: run folders whose finished steps are taken, where they are this study's.

    Raises:
        IndelibleError: before any step, when the settings, the facts, the model, the folder or the cluster cannot be
            used; StoreError also in between, when the disk is full.
    """
    config = load_config(str(config)) if isinstance(config, str | Path) else config
    if not isinstance(config, StudyConfig):
        raise ConfigError(f"A {type(config).__name__} is no study.", "Give a built-in name, a file or a StudyConfig.")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}.", "Give 1 or more.")
    if processes() > 1:
        check_launched(workers, on)
        workers = 1

    def lead(group: Group | None) -> Outcome:
        with shown_study() if watcher is None else nullcontext(watcher) as shown:
            return _run_study(config, folder, shown, group, update, workers, on, each, part, take)

    return lead(None) if processes() == 1 else together(lead)


def _run_study(
    config: StudyConfig,
    folder: Path | str | None,
    watcher: Watcher,
    group: Group | None,
    update: bool,
    workers: int | None,
    on: str | None,
    each: Share | None,
    part: tuple[int, int] | None,
    take: Sequence[Path | str],
) -> Outcome:
    """``run_study``; what tunes is done with the others of a group, if there is one."""
    began, started = time.monotonic(), datetime.now(UTC)
    store, others = Store(Path(folder or Path("runs") / config.name)), _others(take)
    checked = _checked(config, store, update)
    for note in checked.notes:
        watcher.note(note)
    material = Material(checked.world, watcher.note)
    with ExitStack() as held:
        held.enter_context(store.open(config, update=update))
        cluster = None
        if on is not None:
            cluster = held.enter_context(closing(checked.cluster(on, each, workers, watcher.note, store)))
        model = None if update else known_model(store.folder, config.model)
        if model is None:
            model = material.lent.version
            keep_model(store.folder, config.model, model)
        if cluster is not None:
            cluster.model = model
        plan = checked.plan(model, None if cluster is None else cluster.software)
        plan = plan if part is None else plan.part(*part)
        if not plan.runs:
            watcher.note(NO_ARMS)
            store.record("planned", None, steps=0)
            return Outcome(store.folder, [], None, (), time.monotonic() - began)
        for words in set_damaged_aside(store, plan):
            watcher.note(words)
        for other in others:
            watcher.note(f"{counted(store.take(other, plan.steps), 'finished step')} taken from {other.folder}")
        if cluster is None:
            at_once, threads = checked.workers_and_threads(plan, workers, store)
            held.enter_context(computing_with(threads))
        else:
            cluster.threads = store.threads or cluster.threads  # steps may have been taken
        speed = None
        if not all(store.has(step) for step in plan.steps):
            _check_model(checked, material, model, store)
            speed = checked.speed(material.lent, threads) if cluster is None else cluster.speed(checked.tunings)
        executor = cluster or held.enter_context(closing(checked.executor(material, at_once, threads, group)))
        clock, cost = checked.clock(plan, store, executor.workers, speed, cluster)
        run = Pass(store, watcher, executor, plan, clock)
        run.do_all(cost)
        recorded = provenance(model, checked.notes, started, began) | {"predicted": predicted(store, plan)}
        summary = write_results(store, plan, run.errors(), recorded)
    report = store.folder / REPORT if summary else None
    return Outcome(store.folder, summary, report, tuple(run.failures.values()), time.monotonic() - began)


@dataclass(frozen=True)
class _Checked:
    """Settings in which nothing was found wrong, and what they name; all but the model itself. ``notes`` say what was
    left out of a facts file."""

    config: StudyConfig
    arms: tuple[Arm, ...]
    world: World
    corpus: str
    notes: tuple[str, ...]

    @property
    def tunings(self) -> list[TuningSettings]:
        """How each arm is tuned."""
        return [arm.tuning for arm in self.arms]

    def plan(self, model: ModelVersion, software_there: Mapping[str, str] | None = None) -> Plan:
        """The steps, for that version of the model, done with that software; None: with what is here."""
        versions = Versions(
            model=model.fingerprint,
            tokenizer=model.tokenizer,
            software=software_there or software(),
            facts=facts_version(self.world.candidates),
            corpus=self.corpus,
            tasks=tasks_version(),
        )
        return make_plan(self.config, self.arms, versions)

    def plan_without_weights(self, store: Store, software_there: Mapping[str, str] | None = None) -> Plan:
        """The steps, for the model that the run folder knows; without one, steps that are not done."""
        unread = ModelVersion(*[f"not read yet: {self.config.model}"] * 2)
        return self.plan(known_model(store.folder, self.config.model) or unread, software_there)

    def workers_and_threads(self, plan: Plan, wanted: int | None, store: Store) -> tuple[int, int]:
        """How many steps are done at a time (where it is left open, one on an accelerator), and the threads that each
        computes with: as the run folder has it, or else a share of this process's."""
        here, known = torch.get_num_threads(), store.threads
        if wanted is None and default_device().type == "cpu":
            parameters = parameter_count(self.config.model, trust_remote_code=self.config.trust_remote_code) or 0
            wanted = workers_for(max(1, here // (known or 1)), plan.width, 4 * parameters)
        at_once = wanted or 1
        return at_once, known or max(1, here // at_once)

    def executor(self, material: Material, workers: int, threads: int, group: Group | None) -> Executor:
        """Where the steps are done."""
        if group is not None:
            return Together(group, material)
        if workers == 1:
            return Local(material)
        material.let_go()  # each process has its own
        return Processes(self.world, workers, threads)

    def speed(self, lent: LentModel, threads: int) -> Speed:
        """How fast the model is in this process."""
        check_kinds(self.config.exam.also, lent.tokenizer)
        with computing_with(threads), lent.base_model() as bare:
            return measured_speed(bare, lent.tokenizer, self.world.candidates, self.tunings, lent.ways)

    def cluster(
        self, on: str, each: Share | None, workers: int | None, note: Callable[[str], None], store: Store
    ) -> Cluster:
        """The cluster of that address, or of RAY_ADDRESS or this machine where it is "ray"."""
        address, share = None if on == "ray" else on, each or Share()
        return Cluster(self.world, address, share, workers, note, threads=store.threads or share.cpus)

    def clock(
        self, plan: Plan, store: Store, workers: int, speed: Speed | None, cluster: Cluster | None = None
    ) -> tuple[Clock, str]:
        """A clock for the steps that are not done yet, and what these cost on this machine or the cluster, in words."""
        done = {step.key: float(store.record_of(step)["seconds"]) for step in plan.steps if store.has(step)}
        costs = {step.key: step.work.cost(self.config.facts, speed or Speed()) for step in plan.steps}
        pieces = [Piece(step.key, step.title, step.kind, costs[step.key].seconds) for step in plan.steps]
        clock = Clock(pieces, done, workers)
        rest = sum((cost for key, cost in costs.items() if key not in done), Cost())
        left = None if speed is None else clock.left()
        there = () if cluster is None else (f"{counted(workers, 'worker')} of the cluster", cluster.share.gpus or 0.0)
        return clock, rest.in_words(left, *there)


def _others(take: Sequence[Path | str]) -> list[Store]:
    """The run folders that steps are taken from; a StoreError if one is none: its steps would all be done again."""
    for folder in map(Path, take):
        if not (folder / "config.yaml").is_file():
            raise StoreError(f"{folder} is no run folder to take steps from.", "Give a folder that a study wrote.")
    return [Store(Path(folder)) for folder in take]


def _checked(config: StudyConfig, store: Store, update: bool, *, unseen: bool = False) -> _Checked:
    """Find whatever can be found wrong before the first heavy thing is done and the first byte written.

    ``unseen`` lets a model of the hub pass that no hub can be asked about: what would be done can be shown without it.
    """
    arms = resolve_arms(config)
    store.check_config(config, update=update)
    notes: list[str] = []
    candidates, corpus = candidate_facts(config.facts, notes.append), corpus_version(config.corpus)
    config = config.model_copy(update={"facts": checked_facts(candidates, arms, config.facts)})
    check_name(config.model, unseen=unseen, trust_remote_code=config.trust_remote_code)
    world = World(config.model, candidates, config.corpus, config.trust_remote_code, config.seeds)
    return _Checked(config, arms, world, corpus, tuple(notes))


def _check_model(checked: _Checked, material: Material, model: ModelVersion, store: Store) -> None:
    """Find what can be found wrong with the model in hand, before the first step."""
    if (lent := material.lent).version != model:
        raise ModelError(
            f"The model {checked.config.model!r} is another than when {store.folder} was begun.",
            "Give --update to rerun what depends on it, or choose another --out.",
        )
    check_kinds(checked.config.exam.also, lent.tokenizer)
    with lent.base_model() as bare:
        check_with_model(checked.arms, bare, lent.layout, lent.tokenizer, material.corpus)
