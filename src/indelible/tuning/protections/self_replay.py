"""Self-replay: on texts that the edited model itself writes, the model goes on predicting what that predicted.

The texts are drawn from the edited model before training; they stand for all that it knows, at no need of data. A
divergence from the model before tuning on its own samples is reported to prevent most forgetting (arXiv 2605.26097).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from indelible.models.trace import evaluating
from indelible.tuning.protection import PROTECTIONS, Anchored, Guarded
from indelible.tuning.training.answering import Likeliest, predicted


@PROTECTIONS.register("self-replay")
class SelfReplay(Anchored):
    """Options, beside those of ``Anchored``. The change is KL(before || now), nats a token.

    Attributes:
        texts: written before training.
        tokens: of each text.
    """

    name = "self-replay"
    version = 4
    at_once: int = Field(2, ge=1)
    texts: int = Field(32, ge=1)
    tokens: int = Field(48, ge=2)

    @property
    def length(self) -> int:
        """See ``tokens``."""
        return self.tokens

    @property
    def written(self) -> int:
        """Its texts."""
        return self.texts * self.tokens if self.strength else 0

    def prepared(self, wordings: int) -> float:
        """Its texts, whatever was edited."""
        return float(self.written)

    def shown(self, guarded: Guarded, things: Sequence[tuple[int, ...]]) -> list[Likeliest]:
        """What is predicted all through the texts."""
        found = Likeliest.of(predicted(guarded, things, [1] * len(things)))
        return found.parts([len(thing) - 1 for thing in things])

    def change(self, guarded: Guarded, things: Sequence[tuple[int, ...]], kept: Sequence[Likeliest]) -> Tensor:
        """See the module."""
        return Likeliest.joined(kept).divergence(predicted(guarded, things, [1] * len(things))).mean()

    def things(self, guarded: Guarded) -> list[tuple[int, ...]]:
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
