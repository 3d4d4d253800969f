"""The exam of edited copies under which one run's tuning is put: what they would answer had each been tuned so.

Tuning changes a model's weights by a task vector (Ilharco et al., arXiv 2212.04089). Copies of one model that differ by
one edit each are moved nearly alike by the same training, so that the unedited model's task vector, added to each copy,
stands for as many runs of tuning as there are copies. It leaves out whatever the edit itself makes training do.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any, ClassVar

from indelible.progress import Progress
from indelible.study.design.settings import FactsSettings
from indelible.study.run.cost import Cost, Speed, asking, questions_asked
from indelible.study.run.exams import keyed, successes
from indelible.study.run.kept import TUNING, keep_rows, read_json
from indelible.study.run.step import Done, Job, Material, Work
from indelible.study.run.steps.probe import ask_copies
from indelible.why.explain import kept_weights
from indelible.why.mixtures import changed_weights, exchanging


@dataclass(frozen=True)
class AddVector(Work):
    """An exam of each edited copy on the weights that tuning left of the unedited model."""

    kind: ClassVar[str] = "add-vector"

    published: bool
    also: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        return keyed(super().options, self.also)

    def cost(self, facts: FactsSettings, speed: Speed) -> Cost:
        questions = facts.edits * questions_asked(facts, self.also, isolated=True)
        return asking(questions, speed, published=self.published)

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        lent = material.lent
        tuned = kept_weights(job.inputs["tune"])
        run = read_json(job.inputs["tune"] / TUNING)
        with lent.base_model() as model:
            changed = changed_weights(model, tuned)
            with exchanging(model, changed) as exchange:
                exchange(changed)
                rows = ask_copies(
                    job,
                    lent,
                    model,
                    phase="tuned",
                    isolated=True,
                    published=self.published,
                    also=self.also,
                    step=run["steps"],
                    tokens=run["tokens"],
                    progress=progress,
                )
        keep_rows(job.folder, rows)
        shutil.copyfile(job.inputs["tune"] / TUNING, job.folder / TUNING)
        return Done(successes(rows))
