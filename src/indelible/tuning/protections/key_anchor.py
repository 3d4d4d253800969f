"""Key anchor: the keys that reach the edited layers stay where they were.

Under fine-tuning an edit is lost mostly below itself: its weights hardly change, but the key that should fetch it comes
out otherwise. The penalty is the mean squared change of the keys of the edited wordings, over their squared length, in
the edited layers; nothing above them, and nothing behind the subject, is computed. The retain term of RMU (Li et al.,
arXiv 2403.03218) has the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from indelible.models.batches import padded
from indelible.models.trace import by_row, capture
from indelible.tuning.protection import PROTECTIONS, Guarded, Penalty, Protection, Weight, Wording, drawn


@PROTECTIONS.register("key-anchor")
class KeyAnchor(Protection):
    """Options.

    Attributes:
        weight: of the penalty, beside the task's loss.
        wordings: drawn for a step.
        every: optimizer steps from one penalty to the next, which weighs as many times as much.
    """

    name = "key-anchor"
    version = 2
    in_layers = True
    weight: Weight = 10.0
    wordings: int = Field(8, ge=1)
    every: int = Field(1, ge=1)

    def penalty(self, guarded: Guarded) -> Penalty | None:
        """See the module."""
        if not self.weight:
            return None
        with torch.no_grad():
            parts = [_keys(guarded, [wording]) for wording in guarded.wordings]
        before = [(wording, keys_ld[:, 0]) for wording, keys_ld in zip(guarded.wordings, parts, strict=True)]
        draw = drawn(before, guarded.seed)

        def changed(step: int) -> Tensor | None:
            if step % self.every:
                return None
            some = draw.some(self.wordings)
            now_lbd = _keys(guarded, [wording for wording, _ in some]).float()
            then_lbd = torch.stack([keys for _, keys in some], dim=1).float()
            change_lb = (now_lbd - then_lbd).square().sum(-1) / then_lbd.square().sum(-1)
            return self.weight * self.every * change_lb.mean()

        return changed


def _keys(guarded: Guarded, wordings: Sequence[Wording]) -> Tensor:
    """Keys of wordings at the edited layers, ``(layers, wordings, d)``."""
    tokens_bt, mask_bt = padded([wording.prompt[: wording.subject + 1] for wording in wordings])
    paths = [guarded.layout.memory(layer).path for layer in guarded.layers]
    device = guarded.model.device
    with capture(guarded.model, inputs_of=paths, stop_before=paths[-1]) as seen:
        guarded.model(tokens_bt.to(device), attention_mask=mask_bt.to(device), use_cache=False)
    rows, ends = torch.arange(len(wordings)), mask_bt.sum(dim=1) - 1
    return torch.stack([by_row(seen.inputs[path], len(wordings))[rows, ends] for path in paths])
