"""What each kind of step does: choose facts, ask, choose bystanders, edit, ask again, tune and ask.

A step reads the results of its inputs, works on the base model, and returns what there is to keep; that nothing is kept
by halves is the store's business. What a step draws comes from the study's seed alone, never from what ran before it,
so an interrupted study ends like an undisturbed one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from indelible.edits.deltas.delta import Edit
from indelible.edits.editor import EDITORS
from indelible.errors import FactsError
from indelible.exam.exam import known_facts
from indelible.facts.choose import choose_bystanders, choose_sets, in_turns
from indelible.facts.fact import Fact
from indelible.models.bundled.fetch import cache_folder
from indelible.numbers.words import counted
from indelible.study.design.plan import Step, StepKind
from indelible.study.run.base_model import LentModel
from indelible.study.run.chosen_facts import as_asked, chosen_bystanders, chosen_facts
from indelible.study.run.exams import ask, curve_callback, successes, with_curve
from indelible.study.run.explanations import changed_since, explain_loss, keep_weights, kept_weights, snapshot
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.objective import tuning_settings
from indelible.tuning.randomness import seeded
from indelible.tuning.rows import count_reasons
from indelible.tuning.train import TuningResult, fine_tune

Progress = Callable[[int, int, str], None]

# Candidates are asked this many at a time until enough are known.
ASKED_AT_ONCE = 128
# With twice the facts that are needed, the sets can be drawn without favouring what was asked first, and most
# neighbours are facts that the model knows.
KNOWN_PER_CHOSEN = 2


@dataclass(frozen=True)
class Material:
    """What a step works with.

    Attributes:
        lent: the base model.
        candidates: facts to choose from.
        corpus: gives the texts for key covariances when they are needed.
        inputs: folders of the steps that this one builds on, by role.
        progress: told how far the step is.
    """

    lent: LentModel
    candidates: Sequence[Fact]
    corpus: Callable[[], list[str]]
    inputs: Mapping[str, Path]
    progress: Progress


@dataclass(frozen=True)
class Result:
    """What a step found.

    Attributes:
        write: writes the step's files into an empty folder.
        note: one short line for the screen.
        record: entries for step.json.
    """

    write: Callable[[Path], None]
    note: str
    record: Mapping[str, Any] = field(default_factory=dict)


def do_step(step: Step, material: Material) -> Result:
    """Carry out one step.

    Libraries that draw from global generators find the same state in every run of this step; the caller's is kept.

    Raises:
        IndelibleError: whatever the rooms raise when the facts, the options or the training do not work out.
    """
    with seeded(step.seed):
        return _DOERS[step.kind](step, material)


def _select(step: Step, material: Material) -> Result:
    n_edits, n_intrinsic = step.options["n_edits"], step.options["n_intrinsic"]
    goal = KNOWN_PER_CHOSEN * (n_edits + n_intrinsic)
    waiting = in_turns(material.candidates, step.seed)
    known: list[Fact] = []
    asked = 0
    with material.lent.base_model() as model:
        while True:
            batch = waiting[asked : asked + ASKED_AT_ONCE]
            known += known_facts(model, material.lent.tokenizer, batch, enough=None)
            asked += len(batch)
            _tell_choice(material.progress, len(known), goal, asked, len(waiting))
            if len(known) < goal and asked < len(waiting):
                continue
            try:
                edited, intrinsic = choose_sets(
                    known, n_edits, n_intrinsic, step.seed, pool=material.candidates, redraw=step.options["redraw"]
                )
                break
            except FactsError:
                if asked >= len(waiting):
                    raise
    record = {"asked": asked, "known": len(known), "candidates": len(waiting)}
    sets = {
        name: [asdict(as_asked(fact, step.options)) for fact in facts]
        for name, facts in (("edited", edited), ("intrinsic", intrinsic))
    }
    return Result(
        lambda folder: _write_json(folder / "facts.json", sets), f"{len(known)} of {asked} asked are known", record
    )


def _tell_choice(progress: Progress, known: int, goal: int, asked: int, candidates: int) -> None:
    """The choice ends when enough are known or all are asked, whichever is nearer."""
    note = f"{known} known of {asked} asked"
    if known * candidates >= asked * goal:
        progress(min(known, goal), goal, note)
    else:
        progress(asked, candidates, note)


def _base_probe(step: Step, material: Material) -> Result:
    lent = material.lent
    questions = chosen_facts(material.inputs["select"]).questions()
    with lent.base_model() as model:
        rows = ask(
            model, lent.tokenizer, questions, phase="base", published=_published(step), progress=material.progress
        )
    return Result(_rows_writer(rows), successes(rows))


def _bystanders(step: Step, material: Material) -> Result:
    chosen = chosen_facts(material.inputs["select"])
    found = choose_bystanders(material.candidates, chosen.edited, chosen.intrinsic, step.options["count"], step.seed)
    entries = [asdict(fact) for fact in found]
    return Result(lambda folder: _write_json(folder / "bystanders.json", entries), f"{len(found)} chosen")


def _edit(step: Step, material: Material) -> Result:
    chosen = chosen_facts(material.inputs["select"])
    bystanders = chosen_bystanders(material.inputs["bystanders"]) if "bystanders" in material.inputs else []
    editor = EDITORS.get(step.options["editor"])(**step.options["options"])
    isolated = step.options.get("isolated", False)
    with material.lent.base_model() as model:
        made = (editor.edit_each if isolated else editor.edit)(
            model,
            material.lent.tokenizer,
            chosen.edited,
            paraphrases=step.options["paraphrases"],
            seed=step.seed,
            corpus=material.corpus() if editor.uses_text else (),
            bystanders=bystanders,
            cache=cache_folder() / "covariances",
            layout=material.lent.layout,
            identity=material.lent.identity,
            progress=material.progress,
        )
        edits = [made] if isinstance(made, Edit) else list(made)
    names = {name for edit in edits for name in edit.parameters}
    layers = sorted({layer for name in names if (layer := material.lent.layout.layer_of(name)) is not None})
    record = {"layers": layers, "bystanders": len(bystanders)}

    def write(folder: Path) -> None:
        for copy, edit in enumerate(edits):
            edit.save(_edit_folder(folder, copy if isolated else None))

    return Result(write, _what_changed(edits), record)


def _edit_folder(folder: Path, copy: int | None) -> Path:
    """Where an edit step keeps its edit, or that of one copy."""
    return folder / "edit" if copy is None else folder / "edits" / f"{copy:04d}"


def _what_changed(edits: Sequence[Edit]) -> str:
    first = edits[0]
    changed = f"{counted(len(first.parameters), 'weight')} changed"
    what = changed if first.kind == "weights" else f"no weight changed: a {first.kind}"
    return what if len(edits) == 1 else f"{what} in each of {len(edits)} copies"


def _edited_probe(step: Step, material: Material) -> Result:
    lent = material.lent
    chosen = chosen_facts(material.inputs["select"])
    isolated = (material.inputs["edit"] / "edits").is_dir()
    copies: Sequence[int | None] = range(len(chosen.edited)) if isolated else [None]
    frames = []
    for done, copy in enumerate(copies):
        edit = Edit.load(_edit_folder(material.inputs["edit"], copy))
        with lent.base_model() as model, edit.applied(model, known_fingerprint=lent.fingerprint):
            rows = ask(
                model,
                lent.tokenizer,
                chosen.in_copy(copy).questions(edit.context),
                phase="edited",
                copy=copy or 0,
                published=_published(step),
                progress=_silent if isolated else material.progress,
            )
        frames.append(rows)
        if isolated:
            material.progress(done + 1, len(copies), "copies")
    rows = pd.concat(frames, ignore_index=True)
    return Result(_rows_writer(rows), successes(rows))


def _silent(done: int, total: int, note: str) -> None:
    """Progress of a part whose whole is told elsewhere."""


def _tune(step: Step, material: Material) -> Result:
    lent = material.lent
    copy = step.options.get("copy")
    chosen = chosen_facts(material.inputs["select"]).in_copy(copy)
    edit = Edit.load(_edit_folder(material.inputs["edit"], copy)) if "edit" in material.inputs else None
    settings = tuning_settings(step.options["tuning"])
    questions = chosen.questions("" if edit is None else edit.context)
    published = _published(step)
    curve = curve_callback(questions, lent.tokenizer, step.options["every"])
    with lent.base_model() as model:
        changed = () if edit is None else edit.parameters
        frozen = frozen_parameters(step.options["mask"], model, lent.layout, changed)
        # Edits that act beside a weight are in the model while it is tuned, too; nothing of them stays behind.
        with nullcontext() if edit is None else edit.applied(model, known_fingerprint=lent.fingerprint):
            before = snapshot(model, frozen) if step.options.get("keep_weights") else None
            result = fine_tune(
                model,
                lent.tokenizer,
                settings,
                frozen=frozen,
                facts=chosen.spoken_of(published),
                seed=step.seed,
                callbacks=[] if curve is None else [curve],
                progress=material.progress,
                train_on_heldout=published,
            )
            rows = ask(
                model,
                lent.tokenizer,
                questions,
                phase="tuned",
                step=result.steps,
                copy=copy or 0,
                published=published,
                progress=material.progress,
            )
            weights = None if before is None else changed_since(before, model)
    if curve is not None:
        rows = with_curve(rows, curve.curve(), result.steps)
    name = result.figure
    note = f"held-out {name.replace('_', ' ')} {result.before[name]:.3f} to {result.after[name]:.3f}"

    def write(folder: Path) -> None:
        _write_tuning(folder, rows, result, sorted(frozen))
        if weights is not None:
            keep_weights(folder, weights)

    return Result(write, note)


def _explain(step: Step, material: Material) -> Result:
    lent = material.lent
    chosen = chosen_facts(material.inputs["select"])
    edit = Edit.load(_edit_folder(material.inputs["edit"], None))
    tuned = kept_weights(material.inputs["tune"])
    with lent.base_model() as model, edit.applied(model, known_fingerprint=lent.fingerprint):
        found = explain_loss(
            model,
            lent.tokenizer,
            lent.layout,
            edit,
            chosen.edited,
            chosen.intrinsic,
            tuned,
            progress=material.progress,
        )
    return Result(found.write, f"{found.mixtures['mixture'].nunique()} mixtures of edited and tuned weights asked")


_DOERS: Mapping[StepKind, Callable[[Step, Material], Result]] = {
    "select": _select,
    "base-probe": _base_probe,
    "bystanders": _bystanders,
    "edit": _edit,
    "edited-probe": _edited_probe,
    "tune": _tune,
    "explain": _explain,
}


def _published(step: Step) -> bool:
    """Whether the step keeps the published protocol's defects."""
    return bool(step.options.get("as_published", False))


def _rows_writer(rows: pd.DataFrame) -> Callable[[Path], None]:
    return lambda folder: rows.to_parquet(folder / "rows.parquet", index=False)


def _write_tuning(folder: Path, rows: pd.DataFrame, result: TuningResult, frozen: Sequence[str]) -> None:
    rows.to_parquet(folder / "rows.parquet", index=False)
    content = asdict(result)
    log = content.pop("log")
    content |= {"dropped_reasons": count_reasons(result.dropped), "frozen": list(frozen)}
    _write_json(folder / "tuning.json", content)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
