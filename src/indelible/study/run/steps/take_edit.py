"""An edit that was made before the study, taken for the steps that put it into the model: all of it, however few of its
facts are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from indelible.edits.deltas.delta import Edit
from indelible.errors import EditError
from indelible.numbers.words import counted
from indelible.progress import Progress
from indelible.study.design.settings import FactsSettings
from indelible.study.run.cost import Cost, Speed
from indelible.study.run.kept import chosen_facts, edit_path
from indelible.study.run.step import Done, Job, Material, Work
from indelible.study.run.steps.edit import about, what_changed


@dataclass(frozen=True)
class TakeEdit(Work):
    """A delta: its file, and the digest that tells its content from another's."""

    kind: ClassVar[str] = "take-edit"

    file: str
    digest: str

    @property
    def options(self) -> dict[str, Any]:
        return {"digest": self.digest}

    def cost(self, facts: FactsSettings, speed: Speed) -> Cost:
        return Cost()

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        edit = Edit.load(self.file)
        with material.lent.base_model() as model:
            edit.check(model, known_fingerprint=material.lent.fingerprint)
        held = {(fact.text(), fact.new_object) for fact in edit.facts}
        for fact in chosen_facts(job.inputs["select"]).edited:
            if (fact.text(), fact.new_object) not in held:
                raise EditError(
                    f"The fact {fact.id!r} ({fact.text()} {fact.new_object}) was not edited by {self.file}.",
                    "Give facts that it was made of, or the delta itself as their source.",
                )
        edit.save(edit_path(job.folder, None))
        record = about([edit], material.lent.layout) | {"bystanders": len(edit.manifest.bystanders), "texts": None}
        return Done(f"{counted(len(edit.facts), 'fact')}; {what_changed([edit])}", record)
