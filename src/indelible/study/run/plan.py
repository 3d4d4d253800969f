"""A study as a graph of steps: which there are, what each builds on, and which make up an arm.

Pure: settings in, frozen steps out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from indelible.errors import ConfigError
from indelible.study.design.arms import Arm
from indelible.study.design.settings import StudyConfig, check_runs
from indelible.study.run.sources import digest
from indelible.study.run.step import Step, Versions, Work
from indelible.study.run.steps.add_vector import AddVector
from indelible.study.run.steps.bystanders import ChooseBystanders
from indelible.study.run.steps.edit import MakeEdit
from indelible.study.run.steps.explain import Explain
from indelible.study.run.steps.probe import Probe
from indelible.study.run.steps.select import NAMED, Select
from indelible.study.run.steps.take_edit import TakeEdit
from indelible.study.run.steps.tune import Tune
from indelible.tuning.freezing.mask import about_edit

NO_ARMS = "There is nothing to do in this part: there are more parts than runs of arms."
"""What is said of a part that is empty, as of an array with more tasks than it needs; it is no mistake."""


@dataclass(frozen=True)
class ArmRun:
    """Which steps make up one arm under one seed.

    ``edit`` and ``edited`` are None for the control. ``tunes`` has one step, or one for each fact's copy, in their
    order, where the arm is isolated. ``explain`` is None where losses are not explained.
    """

    arm: Arm
    seed: int
    select: Step
    base: Step
    edit: Step | None
    edited: Step | None
    tunes: tuple[Step, ...]
    explain: Step | None = None

    @property
    def vector(self) -> Step | None:
        """The one run of tuning that all copies share, where it is put under their edits."""
        return self.tunes[0].inputs.get("tune")

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of them, each after its inputs."""
        bystanders = None if self.edit is None else self.edit.inputs.get("bystanders")
        made = (self.select, self.base, bystanders, self.edit, self.edited, self.vector, *self.tunes, self.explain)
        return tuple(step for step in made if step is not None)


@dataclass(frozen=True)
class Plan:
    """All steps in an order in which each comes after its inputs, and how arms are put together from them."""

    steps: tuple[Step, ...]
    runs: tuple[ArmRun, ...]

    @property
    def width(self) -> int:
        """How many steps can be done side by side where most can."""
        depth: dict[str, int] = {}
        for step in self.steps:
            depth[step.key] = 1 + max((depth[made.key] for made in step.inputs.values()), default=0)
        return max(Counter(depth.values()).values(), default=1)

    def part(self, number: int, of: int) -> Plan:
        """The arms of part ``number`` (from 1) ``of`` so many, with all steps that they need. Arms that share an edit
        are in one part as far as that can be; parts beyond the number of arms are empty."""
        if not 1 <= number <= of:
            raise ConfigError(f"There is no part {number} of {of}.", "Give (2, 8) for the second of eight.")
        places = {step.key: place for place, step in enumerate(self.steps)}
        runs = sorted(self.runs, key=lambda run: places[(run.edit or run.base).key])
        mine = tuple(runs[len(runs) * (number - 1) // of : len(runs) * number // of])
        needed = {step.key for run in mine for step in run.steps}
        return Plan(tuple(step for step in self.steps if step.key in needed), mine)


def make_plan(config: StudyConfig, arms: Sequence[Arm], versions: Versions) -> Plan:
    """Expand settings to steps: per seed the choice of facts, the base exam, the edits with their exams, the tuning.

    Raises:
        ConfigError: if there are more runs of tuning than the study may have.
    """
    copies = sum(config.facts.edits if arm.protocol == "isolated" else 1 for arm in arms)
    check_runs(len(config.seeds) * copies, config.most_runs, "The study has")
    steps: dict[str, Step] = {}
    runs = [run for seed in config.seeds for run in _Seed(config, versions, seed, steps).runs(arms)]
    return Plan(tuple(steps.values()), tuple(runs))


Training = tuple[str, str, str | None]
"""What a run of tuning does to a model that holds no edit, to be compared: its settings, mask and data."""


@dataclass(frozen=True)
class _Seed:
    """The steps of one seed, put among those of the others as they are made."""

    config: StudyConfig
    versions: Versions
    seed: int
    steps: dict[str, Step]

    def add(self, work: Work, what: str, part: str = "", /, **inputs: Step | None) -> Step:
        """The step, or the one that does the same already."""
        given = {role: step for role, step in inputs.items() if step is not None}
        step = Step.of(work, self.seed, given, self.versions, f"{what}, seed {self.seed}{part}")
        return self.steps.setdefault(step.key, step)

    def runs(self, arms: Sequence[Arm]) -> list[ArmRun]:
        """All arms: their edits first, then their tuning, then what explains it."""
        facts, published = self.config.facts, self.config.as_published
        work = Select(
            *(facts.edits, facts.n_intrinsic, facts.redraws, facts.held_out, facts.neighbours),
            edited=NAMED if facts.file else facts.edited or ("any" if published else "known"),
            stratified=not published,
        )
        select = self.add(work, "choose facts")
        bases = [self.base(arm, select) for arm in arms]
        bystanders = None
        if facts.bystanders and any(arm.reads_bystanders for arm in arms):
            # a step of its own, so that another number of them reruns neither exams nor edits that read none
            bystanders = self.add(ChooseBystanders(facts.bystanders), "choose bystanders", select=select)
        edits = [self.edit(arm, select, bystanders) for arm in arms]
        vectors = {_training(arm) for arm in arms if arm.protocol == "task-vector"}
        tunes = [self.tune(arm, select, edit, bystanders, vectors) for arm, (edit, _) in zip(arms, edits, strict=True)]
        return [
            ArmRun(arm, self.seed, select, base, edit, edited, tune, self.explain(arm, select, edit, tune[0]))
            for arm, base, (edit, edited), tune in zip(arms, bases, edits, tunes, strict=True)
        ]

    def base(self, arm: Arm, select: Step) -> Step:
        """The exam before the edit, of what is tuned later: quantised, where the arm is tuned so."""
        work = Probe("base", self.config.as_published, also=self.config.exam.also, quantised=arm.quantised)
        return self.add(work, f"ask the {'quantised ' if arm.quantised else ''}base model", select=select)

    def edit(self, arm: Arm, select: Step, bystanders: Step | None) -> tuple[Step, Step] | tuple[None, None]:
        """The edit and the exam after it."""
        if arm.editor is None:
            return None, None
        what = arm.editor.name if not arm.paraphrases else f"{arm.editor.name} with {arm.paraphrases} paraphrases"
        what += " isolated" if arm.isolated else ""
        read = bystanders if arm.editor.uses_text else None
        if arm.delta is None:
            work: Work = MakeEdit(arm.editor, arm.paraphrases, arm.isolated)
            edit = self.add(work, f"edit: {what}", select=select, bystanders=read)
        else:
            edit = self.add(TakeEdit(*arm.delta), f"take: {Path(arm.delta[0]).name}", select=select)
        asking = Probe("edited", self.config.as_published, arm.isolated, self.config.exam.also, arm.quantised)
        what += ", quantised" if arm.quantised else ""
        return edit, self.add(asking, f"ask after {what}", select=select, edit=edit)

    def tune(
        self, arm: Arm, select: Step, edit: Step | None, bystanders: Step | None, vectors: Collection[Training]
    ) -> tuple[Step, ...]:
        """The tuning, of each copy where there are several, or of the base model where its change is put under them:
        that is done in ``vectors``, and where a control does the same its weights are kept for it."""
        config, inputs = self.config, {"select": select, "edit": edit}
        published, also = config.as_published, config.exam.also
        work = Tune(arm.tuning, arm.mask, config.exam.every, arm.data, published, arm.explain, also=also)
        if arm.protections:
            work = replace(work, protections=arm.protections, paraphrases=arm.paraphrases)
        mends = any(one.mends for one in arm.protections) and arm.editor is not None and arm.editor.uses_text
        if mends or any(one.needs_others for one in arm.protections):
            inputs["bystanders"] = bystanders
        if arm.protocol == "task-vector":
            frozen_by = edit if about_edit(arm.mask) else None
            base = replace(work, keep_weights=True)
            tuned = self.add(base, f"tune: {arm.name}", ", no edit", select=select, frozen_by=frozen_by)
            return (self.add(AddVector(published, also), f"ask: {arm.name}", **inputs, tune=tuned),)
        if not arm.isolated:
            lent = arm.editor is None and _training(arm) in vectors
            work = replace(work, keep_weights=work.keep_weights or lent)
            return (self.add(work, f"tune: {arm.name}", **inputs),)
        copies = config.facts.edits
        return tuple(
            self.add(replace(work, copy=copy), f"tune: {arm.name}", f", copy {copy + 1} of {copies}", **inputs)
            for copy in range(copies)
        )

    def explain(self, arm: Arm, select: Step, edit: Step | None, tune: Step) -> Step | None:
        """The exams on mixtures of the edited and the tuned weights, where the arm asks for them."""
        if not arm.explain:
            return None
        return self.add(Explain(), f"explain: {arm.name}", select=select, edit=edit, tune=tune)


def _training(arm: Arm) -> Training:
    return digest(arm.tuning.model_dump(mode="json")), arm.mask, arm.data
