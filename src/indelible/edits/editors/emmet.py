"""EMMET: ROME's equality for a whole batch (Gupta et al. 2024, arXiv 2403.14236).

Where MEMIT weighs new facts against what the memory serves, EMMET meets every new value exactly. It edits one layer by
default, as published, and spreads over several where they are given. Values are ROME's, in ROME's units; in the
published code they are MEMIT's, and several facts are met with a slack: R (K^T C^-1 K + s I)^-1 K^T C^-1, which is
MEMIT's update with a weight of s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from indelible.edits.editor import EDITORS, Workbench
from indelible.edits.editors.rome import DEPTHS
from indelible.edits.solving.closed_form import ClosedFormEditor, Measured
from indelible.edits.solving.solve import Factors, equality, ridge
from indelible.edits.solving.spread import Problem, Solver
from indelible.edits.weight_editor import Layers


@EDITORS.register("emmet")
class Emmet(ClosedFormEditor):
    """Equality-constrained mass model editing in a transformer."""

    name: ClassVar[str] = "emmet"
    depths: ClassVar[tuple[float, ...]] = DEPTHS
    as_published: ClassVar[Mapping[str, Any]] = {**ClosedFormEditor.as_published, "slack": 0.1}
    layers: Layers = None
    reference: Measured = "site"
    clamp: float = Field(default=4.0, gt=0, description="Longest value change, in norms of what reference names.")
    slack: float = Field(
        default=0.0, ge=0, description="Preservation against the values of several new facts; 0 meets them exactly."
    )

    def solver(self, bench: Workbench, layers: Sequence[int]) -> Solver:
        factors = self.factorised(bench, layers)

        def solve(problem: Problem) -> Factors:
            keys_dn, factor_dd = problem.keys_dn, factors[problem.layer]
            if self.slack and keys_dn.shape[1] > 1:
                return ridge(keys_dn, problem.residual_on, factor_dd, self.slack)
            return equality(keys_dn, problem.residual_on, factor_dd)

        return solve
