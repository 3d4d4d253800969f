"""Key anchor: the keys that reach the edited layers stay where they were.

Under fine-tuning an edit is lost mostly below itself: its weights hardly change, but the key that should fetch it comes
out otherwise. The penalty is the mean squared change of the keys of the edited wordings, over their squared length, in
the edited layers; nothing above them, and nothing behind the subject, is computed. The retain term of RMU (Li et al.,
arXiv 2403.03218) has the same shape.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from indelible.models.batches import padded
from indelible.models.layout import Layout
from indelible.models.trace import by_row, capture
from indelible.tuning.protection import PROTECTIONS, Anchored, Guarded, Weight, Wording


@PROTECTIONS.register("key-anchor")
class KeyAnchor(Anchored):
    """Options: see ``Anchored``. A pass that ends below the edit is cheap enough for every step."""

    name = "key-anchor"
    version = 4
    in_layers = True
    weight: Weight = 10.0
    every: int = Field(1, ge=1)

    def lacking(
        self, model: PreTrainedModel, layout: Layout, layers: Sequence[int], frozen: Collection[str]
    ) -> str | None:
        """That a mask leaves nothing which moves a key, as a pass over one token tells."""
        if not self.weight or not layers:
            return None
        path = layout.memory(max(layers)).path
        trained = {name: one.requires_grad for name, one in model.named_parameters()}
        try:
            for name, one in model.named_parameters():
                one.requires_grad_(name not in frozen)
            with torch.enable_grad(), capture(model, inputs_of=[path], stop_before=path) as seen:
                model(torch.zeros(1, 1, dtype=torch.long, device=model.device), use_cache=False)
        finally:
            for name, one in model.named_parameters():
                one.requires_grad_(trained[name])
        return None if seen.inputs[path].requires_grad else "No weight is trained that a key hangs on"

    def shown(self, guarded: Guarded, things: Sequence[Wording]) -> Sequence[Tensor]:
        """Their keys, each ``(layers, d)``."""
        return keys_of(guarded, things).unbind(1)

    def change(self, guarded: Guarded, things: Sequence[Wording], kept: Sequence[Tensor]) -> Tensor:
        """See the module."""
        now_lbd, then_lbd = keys_of(guarded, things).float(), torch.stack(list(kept), dim=1).float()
        return ((now_lbd - then_lbd).square().sum(-1) / then_lbd.square().sum(-1)).mean()


def keys_of(guarded: Guarded, wordings: Sequence[Wording]) -> Tensor:
    """Keys of wordings at the edited layers, ``(layers, wordings, d)``."""
    tokens_bt, mask_bt = padded([wording.prompt[: wording.subject + 1] for wording in wordings])
    paths = [guarded.layout.memory(layer).path for layer in guarded.layers]
    device = guarded.model.device
    with capture(guarded.model, inputs_of=paths, stop_before=paths[-1]) as seen:
        guarded.model(tokens_bt.to(device), attention_mask=mask_bt.to(device), use_cache=False)
    rows, ends = torch.arange(len(wordings)), mask_bt.sum(dim=1) - 1
    return torch.stack([by_row(seen.inputs[path], len(wordings))[rows, ends] for path in paths])
