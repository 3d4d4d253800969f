"""A study as a graph of steps, each known by a key that says everything its result depends on.

Pure: settings in, frozen steps out. A step's key is the hash of its kind, its options, the keys of the steps it builds
on, and what it reads from outside (the model, the facts, the texts). Equal keys mean equal results, so arms with the
same edit share it, an interrupted study goes on where it stopped, and a changed option reruns only what hangs on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from indelible.study.design.settings import NO_EDITOR, WORLD, StudyConfig
from indelible.tuning.objective import OBJECTIVES

StepKind = Literal["select", "base-probe", "bystanders", "edit", "edited-probe", "tune", "explain"]

# Raise a kind's number when what its step computes or writes changes, so that older results are not taken for new; an
# objective's version instead, where the change is that objective's alone.
FORMATS: Mapping[StepKind, int] = {
    "select": 2,
    "base-probe": 1,
    "bystanders": 1,
    "edit": 3,
    "edited-probe": 1,
    "tune": 2,
    "explain": 1,
}


@dataclass(frozen=True)
class Sources:
    """Versions of everything that a study reads from outside its settings.

    Attributes:
        model: the model's fingerprint (or its name, as long as the fingerprint is not known).
        tokenizer: digest of the tokenizer and of the tokens that end an answer (or the model's name, likewise).
        software: versions of the packages that every number depends on, and the kind of device.
        facts: digest of the candidate facts.
        corpus: digest or version of the texts for key covariances.
        tasks: version of what the training examples are made from.
    """

    model: str
    tokenizer: str
    software: Mapping[str, str]
    facts: str
    corpus: str
    tasks: str

    def behind(self, *own: Literal["facts", "corpus", "tasks"]) -> dict[str, Any]:
        """What stands behind every step, and some steps' own."""
        everywhere = {"model": self.model, "tokenizer": self.tokenizer, "software": dict(self.software)}
        return everywhere | {name: getattr(self, name) for name in own}


@dataclass(frozen=True)
class Arm:
    """One arm with all defaults filled in and checked (see arms.py).

    Attributes:
        name: as in the study file.
        editor: a registered editor or "none".
        options: all of the editor's options; empty for "none".
        paraphrases: further wordings in the edit.
        mask: freeze mask.
        tuning: all settings of tuning.
        uses_text: whether the edit depends on the corpus and the bystanders.
        data: version of the file or hub dataset that the arm is tuned on; None where it is a built-in task.
        isolated: whether each fact is edited in a copy of its own.
        explain: whether to find out which weights lost what tuning lost.
    """

    name: str
    editor: str
    options: Mapping[str, Any]
    paraphrases: int
    mask: str
    tuning: Mapping[str, Any]
    uses_text: bool = True
    data: str | None = None
    isolated: bool = False
    explain: bool = False

    @property
    def objective(self) -> str:
        """What the arm is tuned on."""
        return str(self.tuning["objective"])

    @property
    def tuner(self) -> str:
        """How the arm is tuned."""
        return str(self.tuning["tuner"])


@dataclass(frozen=True)
class Step:
    """One piece of work whose result is kept under its key.

    Attributes:
        kind: what is done.
        key: 64 hex digits; equal keys mean equal results.
        seed: the study seed that the step belongs to.
        options: everything from the settings that the result depends on.
        inputs: keys of the steps that this one reads, by their role.
        title: what to call it on the screen.
    """

    kind: StepKind
    key: str
    seed: int
    options: Mapping[str, Any]
    inputs: Mapping[str, str]
    title: str

    @property
    def name(self) -> str:
        """Folder name of the result: the kind and the first 16 digits of the key."""
        return f"{self.kind}-{self.key[:16]}"


@dataclass(frozen=True)
class ArmRun:
    """Which steps make up one arm under one seed.

    ``edited`` and ``edit`` are None for the control, ``bystanders`` for every edit that reads none. ``tunes`` has one
    step, and one for each fact's copy, in order of the facts, where the arm is isolated. ``explain`` is None where
    losses are not explained.
    """

    arm: Arm
    seed: int
    select: str
    base: str
    bystanders: str | None
    edit: str | None
    edited: str | None
    tunes: tuple[str, ...]
    explain: str | None = None


@dataclass(frozen=True)
class Plan:
    """All steps in an order in which each comes after its inputs, and how arms are put together from them."""

    steps: tuple[Step, ...]
    runs: tuple[ArmRun, ...]

    def step(self, key: str) -> Step:
        """The step with that key."""
        return next(step for step in self.steps if step.key == key)


def make_plan(config: StudyConfig, arms: Sequence[Arm], sources: Sources) -> Plan:
    """Expand settings to steps: per seed the choice of facts, the base exam, the edits with their exams, the tuning."""
    steps: dict[str, Step] = {}
    runs = []
    for seed in config.seeds:
        select, base = _select_steps(config, sources, seed)
        bystanders = _bystanders_step(config, sources, seed, select)
        edits = [_edit_steps(config, arm, sources, seed, select, bystanders) for arm in arms]
        tunes = [
            _tune_steps(config, arm, sources, seed, select, edit[0] if edit else None)
            for arm, edit in zip(arms, edits, strict=True)
        ]
        read = {edit[0].inputs.get("bystanders") for edit in edits if edit}
        beside = [bystanders] if bystanders is not None and bystanders.key in read else []
        explains = [
            _explain_steps(arm, sources, seed, select, edit, tune)
            for arm, edit, tune in zip(arms, edits, tunes, strict=True)
        ]
        for step in (select, base, *beside, *(step for steps in (*edits, *tunes, *explains) for step in steps)):
            steps.setdefault(step.key, step)
        for arm, edit, tune, explain in zip(arms, edits, tunes, explains, strict=True):
            chosen = edit[0].inputs.get("bystanders") if edit else None
            made, probed = (edit[0].key, edit[1].key) if edit else (None, None)
            keys = tuple(step.key for step in tune)
            why = explain[0].key if explain else None
            runs.append(ArmRun(arm, seed, select.key, base.key, chosen, made, probed, keys, why))
    return Plan(tuple(steps.values()), tuple(runs))


def _select_steps(config: StudyConfig, sources: Sources, seed: int) -> tuple[Step, Step]:
    facts = config.facts
    options = {
        "n_edits": facts.n_edits,
        "n_intrinsic": facts.n_intrinsic,
        "redraw": facts.source == WORLD if facts.redraw is None else facts.redraw,
        "held_out": facts.held_out,
        "neighbours": facts.neighbours,
        "seed": seed,
    }
    outside = sources.behind("facts")
    select = _step("select", seed, options, {}, outside, f"choose facts, seed {seed}")
    asking = _asking(config)
    base = _step("base-probe", seed, asking, {"select": select.key}, outside, f"ask the base model, seed {seed}")
    return select, base


def _bystanders_step(config: StudyConfig, sources: Sources, seed: int, select: Step) -> Step | None:
    """A step of its own, so that another number of them reruns neither exams nor edits that read none."""
    count = config.facts.bystanders
    if count == 0:
        return None
    options = {"count": count, "seed": seed}
    inputs = {"select": select.key}
    return _step("bystanders", seed, options, inputs, sources.behind("facts"), f"choose bystanders, seed {seed}")


def _asking(config: StudyConfig) -> dict[str, Any]:
    """How answers are judged, where that differs from the usual."""
    return {"as_published": True} if config.as_published else {}


def _edit_steps(
    config: StudyConfig, arm: Arm, sources: Sources, seed: int, select: Step, bystanders: Step | None
) -> tuple[()] | tuple[Step, Step]:
    """The edit and the exam after it."""
    if arm.editor == NO_EDITOR:
        return ()
    options = {"editor": arm.editor, "options": arm.options, "paraphrases": arm.paraphrases, "seed": seed}
    options |= {"isolated": True} if arm.isolated else {}
    outside = sources.behind("corpus") if arm.uses_text else sources.behind()
    inputs = {"select": select.key}
    if arm.uses_text and bystanders is not None:
        inputs["bystanders"] = bystanders.key
    what = arm.editor if not arm.paraphrases else f"{arm.editor} with {arm.paraphrases} paraphrases"
    what += " isolated" if arm.isolated else ""
    edit = _step("edit", seed, options, inputs, outside, f"edit: {what}, seed {seed}")
    asked = {"select": select.key, "edit": edit.key}
    probe = _step("edited-probe", seed, _asking(config), asked, sources.behind(), f"ask after {what}, seed {seed}")
    return edit, probe


def _tune_steps(
    config: StudyConfig, arm: Arm, sources: Sources, seed: int, select: Step, edit: Step | None
) -> tuple[Step, ...]:
    options = {"tuning": arm.tuning, "mask": arm.mask, "every": config.exam.every, "data": arm.data, "seed": seed}
    options |= _asking(config) | ({"keep_weights": True} if arm.explain else {})
    if (version := OBJECTIVES.get(arm.objective).version) > 1:
        options["objective_version"] = version
    inputs = {"select": select.key} | ({"edit": edit.key} if edit else {})
    title = f"tune: {arm.name}, seed {seed}"
    if not arm.isolated:
        return (_step("tune", seed, options, inputs, sources.behind("tasks"), title),)
    copies = config.facts.n_edits
    return tuple(
        _step(
            "tune",
            seed,
            {**options, "copy": copy},
            inputs,
            sources.behind("tasks"),
            f"{title}, copy {copy + 1} of {copies}",
        )
        for copy in range(copies)
    )


def _explain_steps(
    arm: Arm, sources: Sources, seed: int, select: Step, edit: Sequence[Step], tune: Sequence[Step]
) -> tuple[Step, ...]:
    """The exams on mixtures of the edited and the tuned weights, where the arm asks for them."""
    if not arm.explain:
        return ()
    inputs = {"select": select.key, "edit": edit[0].key, "tune": tune[0].key}
    return (_step("explain", seed, {}, inputs, sources.behind(), f"explain: {arm.name}, seed {seed}"),)


def _step(
    kind: StepKind,
    seed: int,
    options: Mapping[str, Any],
    inputs: Mapping[str, str],
    outside: Mapping[str, Any],
    title: str,
) -> Step:
    key = digest({"kind": kind, "format": FORMATS[kind], "options": options, "inputs": inputs, "outside": outside})
    return Step(kind, key, seed, options, inputs, title)


def digest(content: Any) -> str:
    """64 hex digits that are equal exactly for equal JSON content, whatever the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
