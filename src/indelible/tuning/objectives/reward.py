"""Reinforcement learning from verifiable rewards: GRPO (Shao et al. 2024, arXiv 2402.03300) on problems that check
their own answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from indelible.models.tokens import encode_prompt
from indelible.tuning.objective import OBJECTIVES, Figure, Judge, Objective, Run, Work
from indelible.tuning.settings import Count, TuningSettings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from indelible.tuning.task import Example

SAMPLING_ARGUMENTS = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0}
"""How answers are sampled where nothing else is passed through to the trainer: from the model's whole distribution."""


class RewardSettings(TuningSettings):
    """Options of a run on rewards."""

    objective: Literal["reward"] = "reward"
    generations: Annotated[int, Field(ge=2)] = Field(
        4, description="answers sampled per problem, in training and of held-out ones"
    )
    answer_tokens: Count = Field(16, description="tokens of an answer at most")

    @model_validator(mode="after")
    def _whole_problems(self) -> Self:
        answers = self.batch_size * self.accumulation
        if answers % self.generations:
            raise ValueError(
                f"batch_size x accumulation ({answers}) answers to a step are no multiple of generations"
                f" ({self.generations})"
            )
        return self

    @property
    def rows_per_step(self) -> int:
        """Problems to a step: each is answered ``generations`` times."""
        return max(1, super().rows_per_step // self.generations)

    @property
    def sampling(self) -> dict[str, Any]:
        """Arguments with which ``generate`` samples as the trainer does, in training and for the held-out figure."""
        asked = {name: self.trainer.get(name, value) for name, value in SAMPLING_ARGUMENTS.items()}
        return asked | dict(self.trainer.get("generation_kwargs") or {})


@dataclass(frozen=True)
class Problem:
    """A problem, in words and as token ids, with what scores an answer in words from 0 to 1."""

    prompt: str
    prompt_ids: tuple[int, ...]
    score: Callable[[str], float] = field(compare=False)

    @property
    def tokens(self) -> int:
        """Of the problem with an answer of one token; it is read with each of its answers."""
        return len(self.prompt_ids) + 1

    def as_dict(self) -> dict[str, Any]:
        """The prompt, as trl's GRPOTrainer has it."""
        return {"prompt": self.prompt}


class Reward(Objective[RewardSettings]):
    """GRPO's loss on answers that the model samples itself."""

    name = "reward"
    default_task = "reward"
    needs = (("prompt", "answer"),)
    asks = True
    figures = (Figure("mean_reward", "higher"), Figure("greedy_reward", "higher"))
    settings = RewardSettings
    trainer_name = "GRPOTrainer"
    decides: ClassVar[Mapping[str, str]] = {
        "num_generations": "set tuning.generations",
        "max_completion_length": "set tuning.answer_tokens",
        "beta": "answers are held to no reference",
    }
    version = 4

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: RewardSettings, labels: Sequence[str]
    ) -> list[Problem]:
        """One problem; none that nothing scores, or that leaves no room for an answer in ``max_tokens``."""
        if not example.prompt or example.score is None:
            return []
        given = encode_prompt(tokenizer, example.prompt)
        if len(given) + settings.answer_tokens > settings.max_tokens:
            return []
        return [Problem(example.prompt, tuple(given), example.score)]

    def work(self, settings: RewardSettings) -> Work:
        """Every answer to a problem is sampled, then trained on; a held-out one is answered as often, and greedily."""
        times = settings.generations
        return Work(trained=times, sampled=times, judged=0, answered=times + 1)

    def arguments(self, settings: RewardSettings) -> dict[str, Any]:
        """How many answers are sampled, and how."""
        own = {"num_generations": settings.generations, "max_completion_length": settings.answer_tokens, "beta": 0.0}
        return own | SAMPLING_ARGUMENTS

    def trainer(self, run: Run[RewardSettings]) -> Any:
        """trl's; each problem scores its own answers."""
        from indelible.tuning.training.trainer import made_trainer, measured

        rows: Sequence[Problem] = run.train

        def reward(completions: Sequence[str], problem: Sequence[int], **_around: Any) -> list[float]:
            return [float(rows[number].score(said)) for number, said in zip(problem, completions, strict=True)]

        numbered = [{**row.as_dict(), "problem": number} for number, row in enumerate(rows)]
        base = _unpadded(run, measured(run, self.trainer_name))
        trainer = made_trainer(run, base, numbered, self.arguments(run.settings), reward_funcs=reward)
        trainer.generation_config.use_cache = run.cache
        return trainer

    def judge(self, run: Run[RewardSettings]) -> Judge:
        """``mean_reward``, what the policy gradient raises: of ``generations`` answers to each problem, sampled as the
        trainer samples them (but without dropout, and by the same random numbers each time); and ``greedy_reward``, of
        the one answer that the model finds most probable, which may fall meanwhile."""
        from indelible.tuning.randomness import kept_random_state
        from indelible.tuning.training.writing import greedy_answers, sampled_answers

        rows: Sequence[Problem] = run.heldout
        prompts = [row.prompt_ids for row in rows]
        tokens, times = run.settings.answer_tokens, run.settings.generations

        def earned(answers: Sequence[str]) -> float:
            with kept_random_state():  # a scorer may be anyone's
                scores = [float(rows[number % len(rows)].score(said)) for number, said in enumerate(answers)]
            return sum(scores) / len(scores)

        def judge(names: Collection[str]) -> dict[str, float]:
            found = {}
            if "mean_reward" in names:
                found["mean_reward"] = earned(sampled_answers(run, prompts * times, tokens, run.settings.sampling))
            if "greedy_reward" in names:
                found["greedy_reward"] = earned(greedy_answers(run, prompts, tokens))
            return found

        return judge


def _unpadded(run: Run[RewardSettings], base: Any) -> Any:
    """trl's trainer, writing in the way that was proved for the model, in evaluation mode (while they are trained, some
    read no cache), and scoring without padding on the left, which many families take for text: trl gives them no
    positions (up to 5 nats off in GPT-2's family)."""
    import torch

    from indelible.models.trace import evaluation_mode
    from indelible.tuning.training.writing import by_length

    ids = {row.prompt: row.prompt_ids for row in run.train}

    class Unpadded(base):
        def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [list(ids[prompt]) for prompt in prompts], None, {}

        def _generate_single_turn(self, prompt_ids: list[list[int]], *around: Any, **more: Any) -> Any:
            written: dict[int, Any] = {}
            with evaluation_mode(run.model):
                for places in by_length([len(ids) for ids in prompt_ids], run, len(prompt_ids)):
                    found = super()._generate_single_turn([prompt_ids[place] for place in places], *around, **more)
                    written |= dict(zip(places, found[0], strict=True))
            return [written[place] for place in range(len(prompt_ids))], *found[1:]

        def _get_per_token_logps_and_entropies(
            self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *around: Any, **more: Any
        ) -> Any:
            """Each row is turned until it begins with its prompt, and what is found is turned back."""
            rows, length = input_ids.shape
            before_r = (attention_mask.cumsum(1) == 0).sum(1, keepdim=True)
            turned_rt = (torch.arange(length, device=input_ids.device) + before_r) % length
            turned = [tensor.gather(1, turned_rt) for tensor in (input_ids, attention_mask)]
            shift_r = before_r.max() - before_r
            kept = logits_to_keep + int(before_r.max())
            found = super()._get_per_token_logps_and_entropies(model, *turned, kept, *around, **more)
            place_rc = shift_r + torch.arange(logits_to_keep, device=input_ids.device)
            return tuple(
                one.gather(1, place_rc) if isinstance(one, torch.Tensor) and one.shape == (rows, kept) else one
                for one in found
            )

    return Unpadded


OBJECTIVES.register(Reward.name)(Reward())
