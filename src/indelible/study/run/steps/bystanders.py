"""Choosing further facts whose subjects closed-form editors are told to leave alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import ClassVar

from indelible.facts.choose import choose_bystanders
from indelible.progress import Progress
from indelible.study.design.settings import FactsSettings
from indelible.study.run.cost import Cost
from indelible.study.run.kept import BYSTANDERS, chosen_facts, write_json
from indelible.study.run.step import Done, Job, Material, Outside, Work


@dataclass(frozen=True)
class ChooseBystanders(Work):
    """``count``: how many there are to be."""

    kind: ClassVar[str] = "bystanders"
    reads: ClassVar[tuple[Outside, ...]] = ("facts",)

    count: int

    def cost(self, facts: FactsSettings) -> Cost:
        return Cost()

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        chosen = chosen_facts(job.inputs["select"])
        found = choose_bystanders(material.world.candidates, chosen.edited, chosen.intrinsic, self.count, job.step.seed)
        write_json(job.folder / BYSTANDERS, [asdict(fact) for fact in found])
        return Done(f"{len(found)} chosen")
