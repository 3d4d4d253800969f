"""The exam before any edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from indelible.progress import Progress
from indelible.study.design.settings import FactsSettings
from indelible.study.run.cost import Cost, prompts_cost, questions_per_fact
from indelible.study.run.exams import ask, successes
from indelible.study.run.kept import chosen_facts, keep_rows
from indelible.study.run.step import Done, Job, Material, Outside, Work


@dataclass(frozen=True)
class BaseProbe(Work):
    """``published``: whether answers are judged as in the published study."""

    kind: ClassVar[str] = "base-probe"
    reads: ClassVar[tuple[Outside, ...]] = ("facts",)

    published: bool

    def cost(self, facts: FactsSettings) -> Cost:
        return Cost(questions_per_fact(facts) * prompts_cost(facts, published=self.published))

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        questions = chosen_facts(job.inputs["select"]).questions()
        lent = material.lent
        with lent.base_model() as model:
            rows = ask(model, lent.tokenizer, questions, phase="base", published=self.published, progress=progress)
        keep_rows(job.folder, rows)
        return Done(successes(rows))
