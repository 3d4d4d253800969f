"""Interpolate: after training, each group of weights goes back towards the edited model as far as the task allows.

As WiSE-FT (Wortsman et al., arXiv 2109.01903), group by group: the layers below the edit, the edited ones, those above,
and what lies in no layer. Only the held-out figure of the task decides; no fact is asked. A study asks such
an arm nothing on the way, since what is there then is not what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from indelible.tuning.protection import PROTECTIONS, Figure, Guarded, Protection


@PROTECTIONS.register("interpolate")
class Interpolate(Protection):
    """Options.

    Attributes:
        allowed: share by which the held-out figure may become worse than training left it, all groups together.
        points: mixtures of edited and tuned weights that are tried of a group, the edited weights first; 0 for none.
    """

    name = "interpolate"
    version = 3
    finishes = True
    allowed: float = Field(0.01, ge=0)
    points: int = Field(4, ge=0)

    @property
    def looks(self) -> int:
        """One, and each mixture of each of the four groups."""
        return 1 + 4 * self.points if self.points else 0

    def finish(self, guarded: Guarded, before: Mapping[str, Tensor], figure: Figure) -> None:
        """See the module."""
        if not self.points:
            return
        model = guarded.model
        most = (tuned := figure()) + self.allowed * abs(tuned)
        parameters = dict(model.named_parameters())
        for names in _groups(guarded, parameters):
            moved = {name: parameters[name].detach().clone() for name in names if name in before}
            for point in range(self.points):
                _mix(parameters, before, moved, point / self.points)
                if figure() <= most:
                    break
            else:
                _mix(parameters, before, moved, 1.0)


def _groups(guarded: Guarded, parameters: Mapping[str, Tensor]) -> list[list[str]]:
    """Names of parameters by where they lie; an edit that lies in no layer has all layers together."""
    edited = [layer for name in guarded.parameters if (layer := guarded.layout.layer_of(name)) is not None]
    found: dict[str, list[str]] = {"below": [], "edited": [], "above": [], "outside": []}
    for name in parameters:
        layer = guarded.layout.layer_of(name)
        if layer is None:
            found["outside"].append(name)
        elif not edited or min(edited) <= layer <= max(edited):
            found["edited"].append(name)
        else:
            found["below" if layer < min(edited) else "above"].append(name)
    return list(found.values())


def _mix(
    parameters: Mapping[str, Tensor], before: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float
) -> None:
    """Set weights between those before, at 0, and the tuned ones, at 1."""
    with torch.no_grad():
        for name, weight in tuned.items():
            parameters[name].copy_(weight if alpha == 1 else before[name].to(weight).lerp(weight, alpha))
