"""Supervised fine-tuning on answers: the prompt is read, only the answer and the end of text bear loss."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from indelible.models.tokens import encode_prompt, encode_target
from indelible.tuning.objectives import NO_LOSS, OBJECTIVES, Features
from indelible.tuning.tasks import Example


class Reason:
    """Loss on the answer's tokens and the end-of-text token that follows them."""

    default_task = "reason"
    heldout_figure = "mean loss per answer token"

    def features(self, tokenizer: PreTrainedTokenizerBase, example: Example, max_tokens: int) -> list[Features]:
        """One row; none for an example without prompt or answer, or longer than ``max_tokens`` (a cut would lose the
        answer)."""
        if not example.prompt or not example.answer:
            return []
        given = encode_prompt(tokenizer, example.prompt)
        wanted = encode_target(tokenizer, example.prompt, example.answer)
        if tokenizer.eos_token_id is not None:
            wanted = [*wanted, tokenizer.eos_token_id]
        if len(given) + len(wanted) > max_tokens:
            return []
        return [Features((*given, *wanted), (NO_LOSS,) * len(given) + tuple(wanted))]


OBJECTIVES.register("reason")(Reason())
