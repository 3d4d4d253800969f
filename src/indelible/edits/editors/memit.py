"""MEMIT: many facts at once, spread over several layers (Meng et al. 2023, arXiv 2210.07229)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from indelible.edits.editor import EDITORS, Workbench
from indelible.edits.solving.closed_form import ClosedFormEditor
from indelible.edits.solving.solve import ridge
from indelible.edits.solving.spread import Solver
from indelible.edits.weight_editor import Layers

# Depths measured on SmolLM2-135M, layers 6 to 8 of 30: with bystanders preserved, they left more of what stands beside
# an edit than layers 3 to 5. They are near the published ones of GPT-J (3 to 8 of 28) and Llama-2-7B (4 to 8 of 32).
DEPTHS = (0.2, 0.234, 0.267)


@EDITORS.register("memit")
class Memit(ClosedFormEditor):
    """Mass-editing memory in a transformer."""

    name: ClassVar[str] = "memit"
    depths: ClassVar[tuple[float, ...]] = DEPTHS
    as_published: ClassVar[Mapping[str, Any]] = {**ClosedFormEditor.as_published, "covariance_weight": 15_000.0}
    layers: Layers = None
    covariance_weight: float = Field(default=1000.0, gt=0, description="Preservation against new facts (lambda).")

    def solver(self, bench: Workbench, layers: Sequence[int]) -> Solver:
        factors = self.factorised(bench, layers)
        weight = self.covariance_weight
        return lambda problem: ridge(problem.keys_dn, problem.residual_on, factors[problem.layer], weight)
