"""Finding out which weights lost what tuning lost: exams on mixtures of the edited and the tuned weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from indelible.progress import Progress
from indelible.study.design.settings import FactsSettings
from indelible.study.run.cost import MIXTURES, Cost, Speed, asking
from indelible.study.run.kept import chosen_facts, kept_edit
from indelible.study.run.step import Done, Job, Material, Work
from indelible.why.explain import explain_loss, kept_weights


@dataclass(frozen=True)
class Explain(Work):
    """The explanation of one run of tuning, which has kept the weights that it changed."""

    kind: ClassVar[str] = "explain"
    version: ClassVar[int] = 2

    def cost(self, facts: FactsSettings, speed: Speed) -> Cost:
        return asking(MIXTURES * (facts.edits + facts.n_intrinsic), speed)

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        lent = material.lent
        chosen = chosen_facts(job.inputs["select"])
        edit = kept_edit(job.inputs)
        assert edit is not None, "only arms that edit are explained"
        tuned = kept_weights(job.inputs["tune"])
        with lent.base_model() as model, lent.holding(edit):
            found = explain_loss(
                model, lent.tokenizer, lent.layout, edit, chosen.edited, chosen.intrinsic, tuned, progress
            )
        found.write(job.folder)
        return Done(f"{found.mixtures['mixture'].nunique()} mixtures of edited and tuned weights asked")
