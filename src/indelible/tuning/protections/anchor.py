"""Anchor: at the edited wordings the model goes on predicting what the edited model predicted (a KL divergence)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from indelible.tuning.protection import PROTECTIONS, Anchored, Guarded, Wording
from indelible.tuning.training.answering import Likeliest, predicted


@PROTECTIONS.register("anchor")
class Anchor(Anchored):
    """Options: see ``Anchored``. The change is KL(before || now), nats a token of the objects."""

    name = "anchor"
    version = 4

    def shown(self, guarded: Guarded, things: Sequence[Wording]) -> list[Likeliest]:
        """What is predicted where the objects' tokens are."""
        return Likeliest.of(_of_object(guarded, things)).parts([len(thing.target) for thing in things])

    def change(self, guarded: Guarded, things: Sequence[Wording], kept: Sequence[Likeliest]) -> Tensor:
        """See the module."""
        return Likeliest.joined(kept).divergence(_of_object(guarded, things)).mean()


def _of_object(guarded: Guarded, wordings: Sequence[Wording]) -> Tensor:
    """Log-probabilities where the objects' tokens are predicted, ``(n, v)``."""
    starts = [len(wording.prompt) for wording in wordings]
    return predicted(guarded, [wording.tokens for wording in wordings], starts)
