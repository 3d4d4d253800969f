"""ROME: one fact, one layer, one rank (Meng et al. 2022, arXiv 2202.05262).

Several facts are edited one after another, each on the model as the ones before left it: this is the published method,
and on small models it wears them down within ten edits (arXiv 2410.18785). A batch belongs to EMMET or MEMIT. As in the
published code, the update has the direction of the key averaged over contexts and meets the new value at the bare one,
and the longest change of a value and its decay are in units of what the MLP returns at the subject (MEMIT and those
after it measure them by the block's output, which is several times longer).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from indelible.edits.editor import EDITORS, Workbench
from indelible.edits.solving.closed_form import ClosedFormEditor, Measured
from indelible.edits.solving.solve import equality
from indelible.edits.solving.spread import Problem, Solver
from indelible.edits.weight_editor import Layer

DEPTHS = (0.234,)


@EDITORS.register("rome")
class Rome(ClosedFormEditor):
    """Rank-one model editing."""

    name: ClassVar[str] = "rome"
    depths: ClassVar[tuple[float, ...]] = DEPTHS
    as_published: ClassVar[Mapping[str, Any]] = {
        **ClosedFormEditor.as_published,
        "steps": 20,
        "clamp": 4.0,
        "reference": "site",
        "contexts": "rome",
        "bare_share": None,
    }
    edits_per_step: Literal[1] = Field(default=1, description="ROME edits one fact at a time.")
    layer: Layer = None
    reference: Measured = "site"
    clamp: float = Field(default=4.0, gt=0, description="Longest value change, in norms of what reference names.")

    def solver(self, bench: Workbench, layers: Sequence[int]) -> Solver:
        factors = self.factorised(bench, layers)
        return lambda problem: equality(
            problem.keys_dn, self.missing(bench, problem), factors[problem.layer], met_dn=self.met(problem)
        )

    def missing(self, bench: Workbench, problem: Problem) -> Tensor:
        """What the values lack of those to be reached."""
        return problem.residual_on

    def met(self, problem: Problem) -> Tensor:
        """The keys at which the new values are met."""
        return problem.bare_dn
