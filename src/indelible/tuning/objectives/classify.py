"""Classification: by label words that the model says, or by a classification head on the same trunk.

With label words the model stays a language model that is asked for one of a few words. With a head (``head: true``) a
linear layer reads the trunk's last state of the text, as transformers' models for sequence classification have it; it
is thrown away after training, and what is left is the trunk that it has pulled along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indelible.tuning.objectives.objective import NO_LOSS, OBJECTIVES, Features, Figure, Judge, Objective, Run, Work

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from indelible.tuning.settings import TuningSettings
    from indelible.tuning.tasks.task import Example

ASKED = "\nLabel:"
"""What follows the text where label words are asked for."""


@dataclass(frozen=True)
class Labelled(Features):
    """A text with its label.

    Attributes:
        words: token ids of each label word, as they follow the text.
        label: number of the right one.
    """

    words: tuple[tuple[int, ...], ...] = ()
    label: int = 0

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The text alone."""
        return self.input_ids[: len(self.input_ids) - len(self.words[self.label])]


class Classify(Objective):
    """Loss on the label word's tokens, or cross entropy of a head over the labels."""

    name = "classify"
    default_task = "classify"
    needs = (("text", "label"), ("prompt", "label"))
    figures = (
        Figure("accuracy", "share of held-out texts labelled right", "higher"),
        Figure("macro_f1", "mean F1 over labels", "higher"),
        Figure("loss", "mean negative log-probability of the right label among the labels", "lower"),
    )

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: TuningSettings, labels: Sequence[str]
    ) -> list[Labelled]:
        """One row; none for a text that is empty or too long to be followed by each label word."""
        from indelible.errors import DataError
        from indelible.models.tokens import encode_prompt, encode_target

        if example.answer not in labels:
            raise DataError(
                f"The label {example.answer!r} is not among {', '.join(map(repr, labels)) or 'none'}.",
                "Name all label words (labels).",
            )
        if not example.prompt.strip():
            return []
        prompt = example.prompt if settings.head else example.prompt + ASKED
        given = encode_prompt(tokenizer, prompt)
        words = tuple(tuple(encode_target(tokenizer, prompt, label)) for label in labels)
        if len(given) + max(map(len, words)) > settings.max_tokens:
            return []
        right = labels.index(example.answer)
        return [Labelled((*given, *words[right]), (NO_LOSS,) * len(given) + words[right], words, right)]

    def trainee(self, model: PreTrainedModel, settings: TuningSettings, labels: Sequence[str]) -> nn.Module:
        from indelible.models.layout import find_layout
        from indelible.tuning.objectives.head import HeadOnTrunk

        return HeadOnTrunk(model, find_layout(model), len(labels)) if settings.head else model

    def work(self, settings: TuningSettings) -> Work:
        """Each label word is tried after a held-out text, mostly two; a head reads the text once."""
        return Work(judged=1 if settings.head else 2)

    def trainer(self, run: Run) -> Any:
        from indelible.tuning.objectives.trainer import head_trainer, plain_trainer

        return head_trainer(run) if run.settings.head else plain_trainer(run)

    def judge(self, run: Run) -> Judge:
        from indelible.tuning.objectives.judges import label_judge

        return label_judge(run)


OBJECTIVES.register(Classify.name)(Classify())
