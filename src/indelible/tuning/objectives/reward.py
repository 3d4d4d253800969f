"""Reinforcement learning from verifiable rewards: GRPO (Shao et al. 2024, arXiv 2402.03300) on problems that check
their own answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from indelible.tuning.objectives.objective import OBJECTIVES, Figure, Judge, Objective, Run, Work

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from indelible.tuning.settings import TuningSettings
    from indelible.tuning.tasks.task import Example

SAMPLING_ARGUMENTS: Mapping[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": None,
    "repetition_penalty": 1.0,
}
"""How answers are sampled where nothing else is passed through to the trainer: from the model's whole distribution."""


@dataclass(frozen=True)
class Problem:
    """A problem with what scores an answer to it.

    Attributes:
        prompt: the problem in words.
        prompt_ids: its token ids.
        score: of an answer in words, from 0 to 1.
    """

    prompt: str
    prompt_ids: tuple[int, ...]
    score: Callable[[str], float] = field(compare=False)

    def as_dict(self) -> dict[str, Any]:
        """The prompt, as trl's GRPOTrainer has it."""
        return {"prompt": self.prompt}


class Reward(Objective):
    """GRPO's loss on answers that the model samples itself."""

    name = "reward"
    default_task = "reward"
    needs = (("prompt", "answer"),)
    figures = (
        Figure("mean_reward", "mean reward of answers to held-out problems, sampled as in training", "higher"),
        Figure("greedy_reward", "mean reward of greedy answers to held-out problems", "higher"),
    )
    trainer_name = "GRPOTrainer"
    version = 2

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: TuningSettings, labels: Sequence[str]
    ) -> list[Problem]:
        """One problem; none that nothing scores, or that leaves no room for an answer in ``max_tokens``."""
        from indelible.models.tokens import encode_prompt

        if not example.prompt or example.score is None:
            return []
        given = encode_prompt(tokenizer, example.prompt)
        if len(given) + settings.answer_tokens > settings.max_tokens:
            return []
        return [Problem(example.prompt, tuple(given), example.score)]

    def rows_per_step(self, settings: TuningSettings) -> int:
        """Problems to a step: each is answered ``generations`` times."""
        return max(1, super().rows_per_step(settings) // settings.generations)

    def work(self, settings: TuningSettings) -> Work:
        """Every answer to a problem is sampled, then trained on; a held-out one is answered as often, and greedily."""
        times = settings.generations
        return Work(trained=times, sampled=times, judged=0, answered=times + 1)

    def sampling(self, settings: TuningSettings) -> dict[str, Any]:
        """Arguments with which ``generate`` samples as the trainer does, in training and for the held-out figure."""
        passed = settings.trainer
        asked = {name: passed.get(name, value) for name, value in SAMPLING_ARGUMENTS.items()}
        return asked | dict(passed.get("generation_kwargs") or {})

    def trainer(self, run: Run) -> Any:
        from indelible.tuning.objectives.trainer import grpo_trainer

        return grpo_trainer(run)

    def judge(self, run: Run) -> Judge:
        from indelible.tuning.objectives.judges import reward_judge

        return reward_judge(run)


OBJECTIVES.register(Reward.name)(Reward())
