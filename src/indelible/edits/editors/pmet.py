"""PMET: MEMIT with attention's share of the answer optimised apart (Li et al. 2023, arXiv 2308.08742).

What attention and the MLP return at the subject are optimised together, each with a delta of its own, but only the
MLP's is written: general ways of attending are left out of the weights. The residual is spread by the square root of
the layers that are left, so that more of it goes into the lower ones. As in the published code, it is read off what the
value layer's MLP returns, where changes below hardly show, so that the value layer gives nearly all of its own delta;
and each delta is measured against what its own site returns.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from pydantic import Field

from indelible.edits.editor import EDITORS
from indelible.edits.editors.memit import Memit
from indelible.edits.solving.keys import Compared
from indelible.edits.solving.suffixes import Reference
from indelible.edits.solving.values import ValueOptions


@EDITORS.register("pmet")
class Pmet(Memit):
    """Precise model editing in a transformer."""

    name: ClassVar[str] = "pmet"
    compared: ClassVar[Compared] = "mlp"
    reference: ClassVar[Reference] = "site"
    clamp: float = Field(
        default=4.0,
        gt=0,
        description="Longest change of each value, in norms of what is returned there at the subject.",
    )

    def value_options(self) -> ValueOptions:
        return replace(super().value_options(), sites=("attention", "mlp"))

    def share(self, layers_left: int) -> float:
        return math.sqrt(layers_left)
