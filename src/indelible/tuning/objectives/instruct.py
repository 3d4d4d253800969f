"""Supervised fine-tuning on instructions: loss on the answer, in the model's own chat format where it has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from indelible.tuning.chat import SHORTEST_ANSWER, chat_ids
from indelible.tuning.objective import OBJECTIVES, Features, Figure, Objective
from indelible.tuning.settings import TuningSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from indelible.tuning.task import Example


class Instruct(Objective[TuningSettings]):
    """Loss on the answer and what closes it; an answer that is too long is cut, without its close."""

    name = "instruct"
    default_task = "instruct"
    needs = (("prompt", "answer"), ("prompt",))
    figures = (Figure("loss", "lower"),)
    trainer_name = "SFTTrainer"

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: TuningSettings, labels: Sequence[str]
    ) -> list[Features]:
        """One row; none for an example without instruction or answer, or whose instruction leaves no room."""
        if not example.prompt or not example.answer:
            return []
        given, wanted = chat_ids(tokenizer, example.prompt, example.answer)
        room = settings.max_tokens - len(given)
        return [Features.answering(given, wanted[:room])] if room >= min(len(wanted), SHORTEST_ANSWER) else []


OBJECTIVES.register(Instruct.name)(Instruct())
