"""Causal language modelling: every token is predicted from those before it."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from indelible.models.tokens import encode_prompt
from indelible.tuning.objectives import NO_LOSS, OBJECTIVES, Features
from indelible.tuning.tasks import Example

MIN_TOKENS = 8
"""A shorter rest at the end of a long text is dropped: its tokens would be predicted from next to nothing."""


class Text:
    """Loss on all tokens but the first; long texts are cut into blocks."""

    default_task = "text"
    heldout_figure = "mean loss per token"

    def features(self, tokenizer: PreTrainedTokenizerBase, example: Example, max_tokens: int) -> list[Features]:
        """The text's consecutive blocks of ``max_tokens`` tokens and its rest, if that is long enough."""
        ids = encode_prompt(tokenizer, example.text)
        blocks = [ids[start : start + max_tokens] for start in range(0, len(ids), max_tokens)]
        shortest = min(MIN_TOKENS, max_tokens)
        return [Features(tuple(block), (NO_LOSS, *block[1:])) for block in blocks if len(block) >= shortest]


OBJECTIVES.register("text")(Text())
