"""PMET: MEMIT with attention's share of the answer optimised apart (Li et al. 2023, arXiv 2308.08742).

What attention and the MLP return at the subject are optimised together, each with a delta of its own, but only the
MLP's is written: general ways of attending are left out of the weights. The residual is spread by the square root of
the layers that are left, so that more of it goes into the lower ones. As in the published code, it is read off what the
value layer's MLP returns, where changes below hardly show, so that the value layer gives nearly all of its own delta;
and each delta is measured against what its own site returns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from indelible.edits.editor import EDITORS
from indelible.edits.editors.memit import Memit
from indelible.edits.solving.closed_form import Measured
from indelible.edits.solving.keys import Compared
from indelible.edits.solving.values import ValueOptions


@EDITORS.register("pmet")
class Pmet(Memit):
    """Precise model editing in a transformer."""

    name: ClassVar[str] = "pmet"
    compared: ClassVar[Compared] = "mlp"
    as_published: ClassVar[Mapping[str, Any]] = {
        **Memit.as_published,
        "reference": "site",
        "steps": 30,
        "learning_rate": 0.2,
        "kl_weight": 1.0,
        "said_kl": 0.01,
        "covariance_weight": 6000.0,
    }
    reference: Measured = "site"
    clamp: float = Field(
        default=4.0, gt=0, description="Longest change of each value, in norms of what reference names."
    )
    said_kl: float | None = Field(
        default=None,
        ge=0,
        description="As published (0.01), a value that says its object is left where the KL term is at most this, and "
        "else the object counts a tenth in the next step.",
    )

    def value_options(self) -> ValueOptions:
        return replace(super().value_options(), sites=("attention", "mlp"))

    def share(self, layers_left: int) -> float:
        return math.sqrt(layers_left)
