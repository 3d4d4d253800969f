"""R-ROME: ROME with one and the same key in all terms (Gupta et al. 2024, arXiv 2403.07175).

ROME's code divides by another key than the one whose direction it takes; single edits can then explode and break the
model for good. With the averaged key everywhere they don't. Its code also averages over contexts what the memory
returned before, so that the averaged key is given the bare wording's value with the change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from indelible.edits.editor import EDITORS, Workbench
from indelible.edits.editors.rome import Rome
from indelible.edits.solving.spread import Problem


@EDITORS.register("r-rome")
class RRome(Rome):
    """Rebuilt rank-one model editing."""

    name: ClassVar[str] = "r-rome"
    as_published: ClassVar[Mapping[str, Any]] = {**Rome.as_published, "bare_value": True}
    bare_value: bool = Field(
        default=False,
        description="Give the averaged key the bare wording's value and the change, as published, not its own and it.",
    )

    def missing(self, bench: Workbench, problem: Problem) -> Tensor:
        """The change, and with ``bare_value`` W (k_bare - k), which the averaged key lacks of the bare one's value."""
        if not self.bare_value:
            return problem.residual_on
        memory = bench.layout.memory(problem.layer)
        weight = bench.model.get_parameter(memory.weight)
        weight_od = weight.T if memory.in_out else weight
        return problem.residual_on + weight_od @ (problem.bare_dn - problem.keys_dn)

    def met(self, problem: Problem) -> Tensor:
        """The averaged keys, as everywhere."""
        return problem.keys_dn
