"""AlphaEdit: MEMIT inside the null space of what is preserved (Fang et al. 2024, arXiv 2410.02355).

The change is projected on the directions in which the keys of ordinary text hardly vary, so that it cannot touch what
those are mapped to; inside them only the new facts, the keys of earlier edits and the size of the change count. Earlier
keys come in from ``edit(..., earlier=...)`` or from the steps before and go out with the update: nothing is kept
elsewhere.

The published threshold and weight are absolute numbers: of E[k k^T] over text, and of k k^T summed over the new facts.
Keys have other scales in other models, so here both are in units of the mean eigenvalue of the preserved second moment,
unless ``units: absolute`` asks for the published ones. A small model may have no null space to speak of: at layers
6 to 8 of SmolLM2-135M a quarter of the directions lie below 0.3 of the mean, but not one below 0.1, so that projecting
protects less than it does in large models. The default size weight is such that as much of the wanted change arrives
there as with MEMIT's defaults, two thirds: a stronger edit lasts longer for that reason alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from indelible.edits.editor import EDITORS, Workbench
from indelible.edits.editors.memit import DEPTHS
from indelible.edits.solving.closed_form import ClosedFormEditor
from indelible.edits.solving.solve import Factors, null_space, null_space_ridge
from indelible.edits.solving.spread import Problem, Solver
from indelible.edits.weight_editor import Layers


@EDITORS.register("alphaedit")
class AlphaEdit(ClosedFormEditor):
    """Null-space constrained editing."""

    name: ClassVar[str] = "alphaedit"
    depths: ClassVar[tuple[float, ...]] = DEPTHS
    keeps_keys: ClassVar[bool] = True
    as_published: ClassVar[Mapping[str, Any]] = {
        **ClosedFormEditor.as_published,
        "null_threshold": 0.02,
        "size_weight": 10.0,
        "units": "absolute",
    }
    layers: Layers = None
    bystander_weight: float = Field(
        default=0.0, ge=0, description="Preservation of bystanders' keys against text's; 0 is the published method."
    )
    covariance_tokens: int | None = Field(
        default=None, gt=0, description="Tokens for the covariance; None takes 20,000, or twice the key width if more."
    )
    null_threshold: float = Field(
        default=0.3, gt=0, description="Directions with eigenvalues below this may change, in units as units says."
    )
    size_weight: float = Field(default=200.0, gt=0, description="Keeps the change small (L2), in units as units says.")
    units: Literal["mean", "absolute"] = Field(
        default="mean", description="Of the two before: the mean eigenvalue, or squared keys as published."
    )

    def solver(self, bench: Workbench, layers: Sequence[int]) -> Solver:
        moments = self.preserved(bench, layers)
        relative = self.units == "mean"
        bases = {layer: null_space(moment, self.null_threshold, relative=relative) for layer, moment in moments.items()}
        units = {
            layer: float(moment.double().diagonal().mean()) if relative else 1.0 for layer, moment in moments.items()
        }

        def solve(problem: Problem) -> Factors:
            return null_space_ridge(
                problem.keys_dn,
                problem.residual_on,
                bases[problem.layer],
                self.size_weight * units[problem.layer],
                earlier_dp=problem.earlier_dm,
            )

        return solve
