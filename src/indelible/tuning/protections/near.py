"""Near: weights are drawn towards those of the edited model, decoupled from the gradient as weight decay is.

The plain baseline: L2-SP (Li, Grandvalet and Davoine, ICML 2018) with the edited model as the starting point.
"""

from __future__ import annotations

import torch

from indelible.tuning.protection import PROTECTIONS, Correction, Guarded, Protection, Weight


@PROTECTIONS.register("near")
class Near(Protection):
    """Options.

    Attributes:
        weight: share of the way back that a step takes, times the learning rate.
    """

    name = "near"
    weight: Weight = 10.0

    def correction(self, guarded: Guarded) -> Correction | None:
        """See the module."""
        if not self.weight:
            return None
        trained = {name: one for name, one in guarded.model.named_parameters() if one.requires_grad}
        before = {name: one.detach().clone() for name, one in trained.items()}

        def draw_back(optimizer: torch.optim.Optimizer) -> None:
            rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
            with torch.no_grad():
                for name, one in trained.items():
                    one.lerp_(before[name], min(1.0, self.weight * rates.get(id(one), 0.0)))

        return draw_back
