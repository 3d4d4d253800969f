"""R-ROME: ROME with one and the same key in all terms (Gupta et al. 2024, arXiv 2403.07175).

ROME's code divides by another key than the one whose direction it takes; single edits can then explode and break the
model for good. With the averaged key everywhere they don't.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from indelible.edits.editor import EDITORS
from indelible.edits.editors.rome import Rome
from indelible.edits.solving.spread import Problem


@EDITORS.register("r-rome")
class RRome(Rome):
    """Rebuilt rank-one model editing."""

    name: ClassVar[str] = "r-rome"

    def met(self, problem: Problem) -> Tensor:
        """The averaged keys, as everywhere."""
        return problem.keys_dn
