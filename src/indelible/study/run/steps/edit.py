"""Making the edit of an arm, or those of all its copies, and keeping it for the steps that put it into the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import Delta, LowRank, WeightUpdate
from indelible.edits.editor import Editor
from indelible.models.bundled.fetch import cache_folder
from indelible.models.layout import Layout
from indelible.numbers.words import counted
from indelible.progress import Progress
from indelible.study.design.settings import FactsSettings
from indelible.study.run.cost import Cost, Speed, edit_cost
from indelible.study.run.kept import chosen_bystanders, chosen_facts, edit_path
from indelible.study.run.step import Done, Job, Material, Outside, Work


@dataclass(frozen=True)
class MakeEdit(Work):
    """An edit: of all facts at once, or of each by itself where ``isolated``."""

    kind: ClassVar[str] = "edit"
    version: ClassVar[int] = 7

    editor: Editor
    paraphrases: int
    isolated: bool

    @property
    def outside(self) -> tuple[Outside, ...]:
        return ("corpus",) if self.editor.uses_text else ()

    def cost(self, facts: FactsSettings, speed: Speed) -> Cost:
        return edit_cost(self.editor, facts.edits * (1 + self.paraphrases), speed)

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        chosen = chosen_facts(job.inputs["select"])
        bystanders = chosen_bystanders(job.inputs["bystanders"]) if "bystanders" in job.inputs else []
        corpus = material.corpus() if self.editor.uses_text else ()
        lent = material.lent
        with lent.base_model() as model:
            made = (self.editor.edit_each if self.isolated else self.editor.edit)(
                model,
                lent.tokenizer,
                chosen.edited,
                paraphrases=self.paraphrases,
                seed=job.step.seed,
                corpus=corpus,
                bystanders=bystanders,
                cache=cache_folder() / "covariances",
                layout=lent.layout,
                identity=lent.identity,
                progress=progress,
            )
            edits = [made] if isinstance(made, Edit) else list(made)
        for copy, edit in enumerate(edits):
            edit.save(edit_path(job.folder, copy if self.isolated else None))
        record = about(edits, lent.layout) | {"bystanders": len(bystanders), "texts": len(corpus)}
        return Done(what_changed(edits), record)


def about(edits: Sequence[Edit], layout: Layout) -> dict[str, Any]:
    """What step.json says of edits: their layers, how large they are, and what share of what was wanted arrived."""
    names = {name for edit in edits for name in edit.parameters}
    layers = sorted({layer for name in names if (layer := layout.layer_of(name)) is not None})
    arrived = {id_: share for edit in edits for id_, share in edit.manifest.arrived.items()}
    return {"layers": layers, "norms": update_norms(edits), "arrived": arrived}


def what_changed(edits: Sequence[Edit]) -> str:
    """In words, what edits of one kind changed."""
    first = edits[0]
    changed = f"{counted(len(first.parameters), 'weight')} changed"
    what = changed if first.kind == "weights" else f"no weight changed: a {first.kind}"
    return what if len(edits) == 1 else f"{what} in each of {len(edits)} copies"


def update_norms(edits: Sequence[Edit]) -> dict[str, float]:
    """Parameter -> the Frobenius norm of its change, the mean over copies where there are several."""
    found: dict[str, list[float]] = {}
    for edit in edits:
        if isinstance(edit, WeightUpdate):
            for name, delta in edit.deltas.items():
                found.setdefault(name, []).append(_norm(delta))
    return {name: sum(norms) / len(norms) for name, norms in found.items()}


def _norm(delta: Delta) -> float:
    """Of thin factors L (d, r) and R (r, k) without forming the product: the square root of tr(LᵀL RRᵀ)."""
    if not isinstance(delta, LowRank):
        return float(delta.full.double().norm())
    left, right = delta.left.double(), delta.right.double()
    return float(((left.T @ left) * (right @ right.T)).sum().clamp(min=0).sqrt())
