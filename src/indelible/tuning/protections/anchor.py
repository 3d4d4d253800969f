"""Anchor: at the edited wordings the model goes on predicting what the edited model predicted (a KL divergence)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from indelible.tuning.protection import PROTECTIONS, Guarded, Penalty, Protection, Weight, Wording, drawn
from indelible.tuning.training.answering import predicted


@PROTECTIONS.register("anchor")
class Anchor(Protection):
    """Options.

    Attributes:
        weight: of the penalty, beside the task's loss.
        wordings: drawn for a step.
        every: optimizer steps from one penalty to the next, which weighs as many times as much.
    """

    name = "anchor"
    version = 2
    weight: Weight = 1.0
    wordings: int = Field(8, ge=1)
    every: int = Field(1, ge=1)

    def penalty(self, guarded: Guarded) -> Penalty | None:
        """See the module: KL(before || now), the mean over the tokens of the objects; nats."""
        if not self.weight:
            return None
        with torch.no_grad():
            before = [(wording, _of_object(guarded, [wording])) for wording in guarded.wordings]
        draw = drawn(before, guarded.seed)

        def changed(step: int) -> Tensor | None:
            if step % self.every:
                return None
            some = draw.some(self.wordings)
            now_nv = _of_object(guarded, [wording for wording, _ in some])
            then_nv = torch.cat([rows for _, rows in some])
            return self.weight * self.every * (then_nv.exp() * (then_nv - now_nv)).sum(-1).mean()

        return changed


def _of_object(guarded: Guarded, wordings: Sequence[Wording]) -> Tensor:
    """Log-probabilities where the objects' tokens are predicted, ``(n, v)``."""
    starts = [len(wording.prompt) for wording in wordings]
    return predicted(guarded, [wording.tokens for wording in wordings], starts)
