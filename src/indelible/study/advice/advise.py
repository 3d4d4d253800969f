"""Advice for whoever is about to fine-tune an edited model: which protection keeps the edits, and at what price.

A pilot is run on some of the facts and a short training on the data: without a protection, with each candidate, and
without the edits. It is an ordinary study, whose folder can be opened, resumed and reported on as any other's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from indelible.errors import ModelError
from indelible.files import whole_file
from indelible.numbers.estimate import Estimate
from indelible.progress import Watcher
from indelible.report.folder import read_run
from indelible.study.advice.choice import choose
from indelible.study.advice.pilot import PLAIN, Candidate, Sought
from indelible.study.run.run import run_study
from indelible.tuning.protection import NONE, protections_from

ADVICE = "advice.json"
FOLDER = Path("runs") / "advise"


@dataclass(frozen=True)
class Advice:
    """What a pilot advises.

    Attributes:
        choice: the protection as the table calls it, or None where the pilot cannot stand behind any.
        why: in sentences; without a choice, what would be needed.
        price: share by which the choice's downstream figure is worse than plain training's.
        time: share by which a training step takes longer with it.
        intervals: what it keeps more than plain training, by measure, and its "price", as fractions with 95% intervals.
        yaml: the choice as an arm of a study has it.
        python: three lines that use it.
        table: one row per candidate and one for plain training.
        folder: the pilot's, with its report.
        seconds: that the pilot took now.
    """

    choice: str | None
    why: str
    price: float | None
    time: float | None
    intervals: Mapping[str, Estimate]
    yaml: str | None
    python: str | None
    table: pd.DataFrame
    folder: Path
    seconds: float

    def __repr__(self) -> str:
        return f"Advice({self.choice or 'none'}: {self.why})"

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        table = self.table.astype(object)
        own = {name: getattr(self, name) for name in ("choice", "why", "price", "time", "yaml", "python")}
        return {
            **own,
            "intervals": {name: asdict(one) for name, one in self.intervals.items()},
            "table": table.where(table.notna(), None).to_dict("records"),
            "folder": str(self.folder),
            "seconds": round(self.seconds, 1),
        }


def advise(
    model: str,
    facts: Path | str | None,
    data: Path | str,
    *,
    objective: str = "text",
    editor: str = "memit",
    delta: Path | str | None = None,
    protections: Sequence[str] = (),
    minutes: float = 20.0,
    price: float = 0.02,
    settings: Sequence[str] = (),
    out: Path | str | None = None,
    update: bool = False,
    trust_remote_code: bool = False,
    watcher: Watcher | None = None,
) -> Advice:
    """Find out by a pilot which protection keeps edits while a model is fine-tuned on some data.

    Args:
        model: the unedited one: a bundled name, a hub id or a folder.
        facts: file of the facts to be edited, each with a new object. Others without one are the intrinsic facts; where
            there are none, built-in ones are. None for those of the delta.
        data: a file or a data set of the hub to train on, or the name of a built-in task.
        objective: what is learned of it.
        editor: what edits the facts.
        delta: an edit that is made already, in place of an editor: it stays whole, and some of its facts are asked.
        protections: the candidates: protections as in a study, masks, or both joined by a +. By default all built-in
            protections that fit the edit, everything up to the edit frozen, and that with its facts replayed.
        minutes: that the pilot may take on this machine, about.
        price: share by which the downstream figure may be worse than plain training's.
        settings: of the pilot's study, each as ``tuning.learning_rate=2e-5``: say how you will train.
        out: the run folder; ``runs/advise`` by default. A pilot that stands there is gone on with.
        update: let a folder of other settings take these.
        trust_remote_code: run the code that the model brings along.
        watcher: told what happens.

    Raises:
        ConfigError: minutes that do not suffice, an unknown editor, protection or setting.
        FactsError, DataError: facts or data that cannot be used.
        IndelibleError: as ``run_study``.
    """
    sought = Sought(
        model=model,
        facts=None if facts is None else Path(facts),
        data=str(data),
        objective=objective,
        editor=editor,
        delta=None if delta is None else Path(delta),
        protections=tuple(protections),
        minutes=minutes,
        allowed=price,
        settings=tuple(settings),
        trust_remote_code=trust_remote_code,
    )
    return advise_on(sought, Path(out or FOLDER), update=update, watcher=watcher)


def advise_on(sought: Sought, folder: Path, *, update: bool = False, watcher: Watcher | None = None) -> Advice:
    """The advice that is sought, by a pilot in that folder; see ``advise``."""
    began, watcher = time.monotonic(), watcher or Watcher()
    size = None if update else sought.begun(folder)
    if size is None:
        watcher.note(f"loading {sought.model} to measure how fast it is here")
        size = sought.fitting(sought.speed())
    outcome = run_study(sought.study(size), folder, watcher=watcher, update=update)
    if outcome.report is None:
        failed = outcome.failures[0]
        raise ModelError(f"The pilot could not be run: {failed.title}: {failed.error}", "Mend that, and try again.")
    run = read_run(folder)
    found = choose(run.answers, run.runs, PLAIN, list(sought.candidates), sought.allowed)
    chosen = found.chosen
    advice = Advice(
        None if chosen is None else chosen.arm,
        found.why,
        None if chosen is None else chosen.price.value,
        None if chosen is None else chosen.time,
        {} if chosen is None else {**chosen.gains, "price": chosen.price},
        None if chosen is None else in_yaml(sought.candidates[chosen.arm]),
        None if chosen is None else in_python(sought, sought.candidates[chosen.arm]),
        found.table(),
        folder,
        time.monotonic() - began,
    )
    with whole_file(folder / ADVICE) as path:
        path.write_text(json.dumps(advice.record(), indent=2) + "\n", encoding="utf-8")
    return advice


def in_yaml(candidate: Candidate) -> str:
    """A candidate as an arm of a study has it."""
    return yaml.safe_dump(candidate, sort_keys=False).strip()


def in_python(sought: Sought, candidate: Candidate) -> str:
    """Three lines that protect the edit with it, in a training of one's own."""
    protect, mask = candidate.get("protect", NONE), candidate.get("mask")
    editor, paraphrases = sought.editing
    edit = f'indelible.edit(loaded, facts, "{editor}")' if sought.delta is None else f"Edit.load({str(sought.delta)!r})"
    wordings = f", paraphrases={paraphrases}" if paraphrases else ""
    made = protections_from(protect)
    others = ", others=others" if any(one.needs_others for one in made) else ""
    lines = [f"edit = {edit}; edit.apply(loaded.model)"]
    if any(one.finishes for one in made):
        guarded = f"Guarded.of(loaded.model, loaded.tokenizer, edit.facts, edit.parameters{wordings}{others})"
        given = f"protections=protections_from({protect!r}), guarded=guarded"
        if mask:
            given += f", frozen=frozen_parameters({mask!r}, loaded.model, guarded.layout, edit.parameters)"
        lines += [f"guarded = {guarded}", f"indelible.fine_tune(loaded, settings, {given})"]
    else:
        frozen = f", mask={mask!r}" if mask else ""
        lines.append(f"callback = indelible.protect(loaded, edit, {protect!r}{frozen}{wordings}{others})")
        lines.append("trainer = Trainer(..., callbacks=[callback])")
    return "\n".join(lines)
