"""The exam after the edit: of the one edited model, or of each copy about its own fact and all intrinsic ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from indelible.edits.deltas.delta import Edit
from indelible.progress import Progress, silent
from indelible.study.design.settings import FactsSettings
from indelible.study.run.cost import Cost, prompts_cost, questions_per_fact
from indelible.study.run.exams import ask, successes
from indelible.study.run.kept import chosen_facts, edit_path, keep_rows
from indelible.study.run.step import Done, Job, Material, Work


@dataclass(frozen=True)
class EditedProbe(Work):
    """``isolated``: whether there is a copy for each fact; ``published``: whether answers are judged as published."""

    kind: ClassVar[str] = "edited-probe"

    isolated: bool
    published: bool

    def cost(self, facts: FactsSettings) -> Cost:
        models = facts.n_edits if self.isolated else 1
        prompts = prompts_cost(facts, isolated=self.isolated, published=self.published)
        return Cost(models * questions_per_fact(facts) * prompts)

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        lent = material.lent
        chosen = chosen_facts(job.inputs["select"])
        copies: Sequence[int | None] = range(len(chosen.edited)) if self.isolated else [None]
        frames = []
        for done, copy in enumerate(copies, 1):
            edit = Edit.load(edit_path(job.inputs["edit"], copy))
            with lent.base_model() as model, edit.applied(model, known_fingerprint=lent.fingerprint):
                rows = ask(
                    model,
                    lent.tokenizer,
                    chosen.in_copy(copy).questions(edit.context),
                    phase="edited",
                    copy=copy or 0,
                    published=self.published,
                    progress=silent if self.isolated else progress,
                )
            frames.append(rows)
            if self.isolated:
                progress(done, len(copies), "copies")
        rows = pd.concat(frames, ignore_index=True)
        keep_rows(job.folder, rows)
        return Done(successes(rows))
