"""MEMIT: many facts at once, spread over several layers (Meng et al. 2023, arXiv 2210.07229)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from indelible.edits.closed_form import ClosedFormEditor
from indelible.edits.editor import EDITORS, Workbench, chosen_layers
from indelible.edits.solve import Factors, ridge
from indelible.edits.spread import spread
from indelible.edits.update import Delta
from indelible.edits.values import optimise_values
from indelible.edits.wordings import rows_for, sample_contexts
from indelible.facts.fact import Fact
from indelible.models.layout import Layout

# Depths measured on SmolLM2-135M, layers 6 to 8 of 30: with bystanders preserved, they left more of what stands beside
# an edit than layers 3 to 5. They are near the published ones of GPT-J (3 to 8 of 28) and Llama-2-7B (4 to 8 of 32).
_DEPTHS = (0.2, 0.234, 0.267)


@EDITORS.register("memit")
class Memit(ClosedFormEditor):
    """Mass-editing memory in a transformer."""

    name: ClassVar[str] = "memit"
    layers: tuple[int, ...] | None = Field(default=None, description="Layers to change; None chooses by depth.")
    covariance_weight: float = Field(default=1000.0, gt=0, description="Preservation against new facts (lambda).")

    def layers_in(self, layout: Layout) -> tuple[int, ...]:
        return chosen_layers(layout, self.layers, _DEPTHS)

    def change(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Mapping[str, Delta]:
        layers = self.layers_in(bench.layout)
        contexts = sample_contexts(bench.model, bench.tokenizer, self.contexts, seed=bench.seed)
        rows = [rows_for(bench.tokenizer, fact, paraphrases, contexts) for fact in facts]
        moments = self.preserved(bench, layers)
        values = optimise_values(bench.model, bench.layout, layers[-1], rows, self.value_options(), bench.progress)

        def solve(layer: int, keys_dn: Tensor, residual_on: Tensor) -> Factors:
            return ridge(keys_dn, residual_on, moments[layer].to(keys_dn.device), self.covariance_weight)

        return spread(bench, layers, rows, values.deltas_fo, solve)
