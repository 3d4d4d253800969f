"""EMMET: ROME's equality for a whole batch (Gupta et al. 2024, arXiv 2403.14236).

Where MEMIT weighs new facts against what the memory serves, EMMET meets every new value exactly. It edits one layer by
default, as published, and spreads over several where they are given. Values are ROME's, in ROME's units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from indelible.edits.editor import EDITORS, Workbench
from indelible.edits.editors.rome import DEPTHS
from indelible.edits.solving.closed_form import ClosedFormEditor
from indelible.edits.solving.solve import equality
from indelible.edits.solving.spread import Solver
from indelible.edits.solving.suffixes import Reference
from indelible.edits.weight_editor import Layers


@EDITORS.register("emmet")
class Emmet(ClosedFormEditor):
    """Equality-constrained mass model editing in a transformer."""

    name: ClassVar[str] = "emmet"
    depths: ClassVar[tuple[float, ...]] = DEPTHS
    reference: ClassVar[Reference] = "site"
    layers: Layers = None
    clamp: float = Field(
        default=4.0, gt=0, description="Longest value change, in norms of what the layer's MLP returns at the subject."
    )

    def solver(self, bench: Workbench, layers: Sequence[int]) -> Solver:
        factors = self.factorised(bench, layers)
        return lambda problem: equality(problem.keys_dn, problem.residual_on, factors[problem.layer])
