"""What a model predicts behind the beginnings of texts, with gradients, for penalties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from indelible.models.batches import padded
from indelible.models.trace import select_before_head
from indelible.tuning.protection import Guarded

LIKELIEST = 64
"""Words whose probabilities are kept of a prediction."""


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


@dataclass(frozen=True)
class Likeliest:
    """Of n predictions the k likeliest words and their log-probabilities, twice ``(n, k)``; all others count as one."""

    words_nk: Tensor
    log_probs_nk: Tensor

    @classmethod
    def of(cls, log_probs_nv: Tensor) -> Self:
        """Those of whole predictions."""
        found = log_probs_nv.topk(min(LIKELIEST, log_probs_nv.shape[1] - 1))
        return cls(found.indices, found.values)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Several, one behind the other."""
        return cls(torch.cat([part.words_nk for part in parts]), torch.cat([part.log_probs_nk for part in parts]))

    def parts(self, sizes: Sequence[int]) -> list[Self]:
        """So many each, in copies that hold nothing of the whole."""
        pairs = zip(self.words_nk.split(list(sizes)), self.log_probs_nk.split(list(sizes)), strict=True)
        return [type(self)(words_nk.clone(), log_probs_nk.clone()) for words_nk, log_probs_nk in pairs]

    def divergence(self, now_nv: Tensor) -> Tensor:
        """KL(these || now), ``(n,)``, in nats."""
        now_nk = now_nv.gather(1, self.words_nk)
        rest_n, now_rest_n = ((1 - one.exp().sum(-1)).clamp(min=1e-6) for one in (self.log_probs_nk, now_nk))
        kept_n = (self.log_probs_nk.exp() * (self.log_probs_nk - now_nk)).sum(-1)
        return kept_n + rest_n * (rest_n / now_rest_n).log()
