"""What a model predicts behind the beginnings of texts, with gradients, for penalties."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from indelible.models.batches import padded
from indelible.models.trace import select_before_head
from indelible.tuning.protection import Guarded


def predicted(guarded: Guarded, texts: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
    """Log-probabilities ``(n, v)`` in float32 where each text's tokens from its start on are predicted, text by text;
    a start is at least 1."""
    model = guarded.model
    tokens_bt, mask_bt = padded([text[:-1] for text in texts])  # nothing is predicted behind the last
    places = [(row, at) for row, start in enumerate(starts) for at in range(start - 1, len(texts[row]) - 1)]
    rows_n, at_n = torch.tensor(places, device=model.device).T
    head = model.get_submodule(guarded.layout.head)
    with select_before_head(head, rows_n, at_n):
        logits = model(tokens_bt.to(model.device), attention_mask=mask_bt.to(model.device), use_cache=False).logits
    log_probs_nv: Tensor = logits[0].float().log_softmax(-1)
    return log_probs_nv


def following(texts: Sequence[Sequence[int]], starts: Sequence[int]) -> Tensor:
    """The tokens that ``predicted`` is about, ``(n,)``."""
    return torch.tensor([token for text, start in zip(texts, starts, strict=True) for token in text[start:]])
