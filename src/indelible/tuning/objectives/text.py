"""Causal language modelling: every token is predicted from those before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from indelible.models.tokens import encode_text
from indelible.tuning.objective import NO_LOSS, OBJECTIVES, Features, Figure, Objective
from indelible.tuning.settings import TuningSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from indelible.tuning.task import Example

MIN_TOKENS = 8
"""A shorter rest at the end of a long text is dropped: its tokens would be predicted from next to nothing."""


class Text(Objective[TuningSettings]):
    """Loss on all tokens but the first; long texts are cut into blocks. Figures are means per held-out token."""

    name = "text"
    default_task = "text"
    needs = (("text",), ("prompt", "answer"))
    figures = (Figure("loss", "lower"), Figure("perplexity", "lower"))

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: TuningSettings, labels: Sequence[str]
    ) -> list[Features]:
        """The text's consecutive blocks of ``max_tokens`` tokens and its rest, if that is long enough."""
        length = settings.max_tokens
        ids = encode_text(tokenizer, example.text)
        blocks = [ids[start : start + length] for start in range(0, len(ids), length)]
        shortest = min(MIN_TOKENS, length)
        return [Features(tuple(block), (NO_LOSS, *block[1:])) for block in blocks if len(block) >= shortest]


OBJECTIVES.register(Text.name)(Text())
