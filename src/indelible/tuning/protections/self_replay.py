"""Self-replay: on texts that the edited model itself writes, the model goes on predicting what that predicted.

The texts are drawn from the edited model before training; they stand for all that it knows, at no need of data. A
divergence from the model before tuning on its own samples is reported to prevent most forgetting (arXiv 2605.26097).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from indelible.models.trace import evaluating
from indelible.tuning.protection import PROTECTIONS, Guarded, Penalty, Protection, Weight, drawn
from indelible.tuning.training.answering import predicted

LIKELIEST = 64
"""Words whose probabilities are kept of each prediction; the others are one."""


@PROTECTIONS.register("self-replay")
class SelfReplay(Protection):
    """Options.

    Attributes:
        weight: of KL(before || now), nats a token, beside the task's loss.
        texts: written before training.
        tokens: of each text.
        at_once: texts drawn for a step.
    """

    name = "self-replay"
    version = 2
    weight: Weight = 1.0
    texts: int = Field(64, ge=1)
    tokens: int = Field(48, ge=2)
    at_once: int = Field(2, ge=1)

    def penalty(self, guarded: Guarded) -> Penalty | None:
        """See the module."""
        if not self.weight:
            return None
        texts = self._written(guarded)
        with torch.no_grad():
            before = [(text, *_likeliest(predicted(guarded, [text], [1]))) for text in texts]
        draw = drawn(before, guarded.seed)

        def changed(step: int) -> Tensor:
            some = draw.some(self.at_once)
            now_nv = predicted(guarded, [text for text, _, _ in some], [1] * len(some))
            words_nk = torch.cat([words for _, words, _ in some])
            then_nk = torch.cat([log_probs for _, _, log_probs in some])
            return self.weight * _divergence(then_nk, now_nv.gather(1, words_nk)).mean()

        return changed

    def _written(self, guarded: Guarded) -> list[tuple[int, ...]]:
        """Texts sampled from the model, each behind one of the words that it most expects at a text's beginning."""
        model: Any = guarded.model
        tokenizer = guarded.tokenizer
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        begin = torch.full((self.texts, 1), 0 if first is None else first, device=model.device)
        with evaluating(model), torch.random.fork_rng(devices=[]):
            torch.manual_seed(guarded.seed % 2**63)
            written = model.generate(
                begin,
                attention_mask=torch.ones_like(begin),
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
                min_new_tokens=self.tokens - 1,
                max_new_tokens=self.tokens - 1,
                pad_token_id=int(begin[0, 0]),
            )
        return [tuple(row) for row in written.tolist()]


def _likeliest(log_probs_nv: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest words of each prediction and their log-probabilities, twice ``(n, k)``."""
    found = log_probs_nv.topk(min(LIKELIEST, log_probs_nv.shape[1] - 1))
    return found.indices, found.values


def _divergence(then_nk: Tensor, now_nk: Tensor) -> Tensor:
    """KL(then || now) over the kept words and all others together, ``(n,)``."""
    rests = [(1 - one.exp().sum(-1)).clamp(min=1e-6) for one in (then_nk, now_nk)]
    kept = (then_nk.exp() * (then_nk - now_nk)).sum(-1)
    return kept + rests[0] * (rests[0] / rests[1]).log()
