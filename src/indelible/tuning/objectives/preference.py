"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) on pairs of answers, one of them preferred.

The reference is the model as it stands before tuning, the edit included: trl would load it anew from where the model
came from, and that would be the unedited one. Its log-probabilities are taken once, in the precision of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from indelible.tuning.objectives.objective import OBJECTIVES, Figure, Judge, Objective, Run, Work

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from indelible.tuning.settings import TuningSettings
    from indelible.tuning.tasks.task import Example

SHORTEST_ANSWER = 4
"""Answers that are cut to fewer tokens than this say nothing of a preference."""


@dataclass(frozen=True)
class Pair:
    """A prompt with two answers to it.

    Attributes:
        prompt_ids: p token ids.
        chosen_ids: of the preferred answer.
        rejected_ids: of the other.
    """

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """The three, as trl's DPOTrainer has them."""
        return {
            "prompt_ids": list(self.prompt_ids),
            "chosen_ids": list(self.chosen_ids),
            "rejected_ids": list(self.rejected_ids),
        }


class Preference(Objective):
    """DPO's loss; implicit rewards are measured against the model before tuning."""

    name = "preference"
    default_task = "preference"
    needs = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
    figures = (
        Figure("preference_accuracy", "share of held-out pairs whose chosen answer gained more (ties: half)", "higher"),
        Figure("margin", "mean difference of implicit rewards, chosen less rejected", "higher"),
        Figure("loss", "mean DPO loss", "lower"),
    )
    trainer_name = "DPOTrainer"

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: TuningSettings, labels: Sequence[str]
    ) -> list[Pair]:
        """One pair, its answers cut to ``max_tokens`` with the prompt; none where the prompt leaves no room, or where
        the cut leaves no difference."""
        from indelible.tuning.chat import chat_ids

        if not (example.prompt and example.answer and example.rejected):
            return []
        prompt, chosen = chat_ids(tokenizer, example.prompt, example.answer)
        other_prompt, rejected = chat_ids(tokenizer, example.prompt, example.rejected)
        room = settings.max_tokens - len(prompt)
        if prompt != other_prompt or room < SHORTEST_ANSWER or chosen[:room] == rejected[:room]:
            return []
        return [Pair(tuple(prompt), tuple(chosen[:room]), tuple(rejected[:room]))]

    def work(self, settings: TuningSettings) -> Work:
        """Both answers of a pair, and both by the reference."""
        return Work(trained=2, referred=2, judged=2)

    def trainer(self, run: Run) -> Any:
        from indelible.tuning.objectives.trainer import dpo_trainer

        return dpo_trainer(run)

    def judge(self, run: Run) -> Judge:
        from indelible.tuning.objectives.judges import preference_judge

        return preference_judge(run)


OBJECTIVES.register(Preference.name)(Preference())
