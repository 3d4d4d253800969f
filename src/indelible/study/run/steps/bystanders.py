"""Choosing further facts whose subjects closed-form editors are told to leave alone.

One of the edited facts' relations gives none: bystanders share relations and templates with the neighbours that
locality is measured on, and where they do, it is measured on what the editor was told to preserve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from indelible.facts.choose import choose_bystanders, relation_apart
from indelible.facts.fact import entry_of
from indelible.progress import Progress
from indelible.study.design.settings import FactsSettings
from indelible.study.run.cost import Cost, Speed
from indelible.study.run.kept import BYSTANDERS, chosen_facts, write_json
from indelible.study.run.step import Done, Job, Material, Outside, Work


@dataclass(frozen=True)
class ChooseBystanders(Work):
    """``count``: how many there are to be."""

    kind: ClassVar[str] = "bystanders"
    version: ClassVar[int] = 2
    reads: ClassVar[tuple[Outside, ...]] = ("facts",)

    count: int

    def cost(self, facts: FactsSettings, speed: Speed) -> Cost:
        return Cost()

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        chosen = chosen_facts(job.inputs["select"])
        apart = relation_apart(material.world.candidates, chosen.edited, job.step.seed)
        pool = [fact for fact in material.world.candidates if fact.true_object and fact.relation != apart]
        found = choose_bystanders(pool, chosen.edited, chosen.intrinsic, self.count, job.step.seed)
        write_json(job.folder / BYSTANDERS, [entry_of(fact) for fact in found])
        none_of = "there is one relation, so none is kept apart" if apart is None else f"none of the relation {apart}"
        return Done(f"{len(found)} chosen, {none_of}", {"relation_apart": apart})
