"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290) on pairs of answers, one of them preferred.

The reference is the model as it stands before tuning, the edit included: trl would load it anew from where the model
came from, and that would be the unedited one. Its log-probabilities are taken once, in the precision of training.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from indelible.tuning.chat import SHORTEST_ANSWER, chat_ids
from indelible.tuning.objective import OBJECTIVES, Figure, Judge, Objective, Run, Work
from indelible.tuning.settings import Positive, TuningSettings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from indelible.tuning.task import Example


class PreferenceSettings(TuningSettings):
    """Options of a run on preferences."""

    objective: Literal["preference"] = "preference"
    beta: Positive = Field(0.1, description="how strongly DPO holds on to the model before tuning")


@dataclass(frozen=True)
class Pair:
    """A prompt with the preferred and the other answer to it, as token ids."""

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Of the prompt and both answers; where the prompt is read with each of them, more are."""
        return len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    def as_dict(self) -> dict[str, Any]:
        """The three, as trl's DPOTrainer has them."""
        return {name: list(ids) for name, ids in asdict(self).items()}


class Preference(Objective[PreferenceSettings]):
    """DPO's loss; implicit rewards are measured against the model before tuning. Over held-out pairs
    ``preference_accuracy`` is the share whose chosen answer gained more (ties: half), ``margin`` the mean difference of
    implicit rewards, chosen less rejected."""

    name = "preference"
    default_task = "preference"
    needs = (("prompt", "chosen", "rejected"), ("chosen", "rejected"))
    figures = (Figure("preference_accuracy", "higher"), Figure("margin", "higher"), Figure("loss", "lower"))
    settings = PreferenceSettings
    trainer_name = "DPOTrainer"
    decides: ClassVar[Mapping[str, str]] = {
        "beta": "set tuning.beta",
        "precompute_ref_log_probs": "the reference is the model before tuning",
    }

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: PreferenceSettings, labels: Sequence[str]
    ) -> list[Pair]:
        """One pair, its answers cut to ``max_tokens`` with the prompt; none where the prompt leaves no room, or where
        the cut leaves no difference."""
        if not (example.prompt and example.answer and example.rejected):
            return []
        prompt, chosen = chat_ids(tokenizer, example.prompt, example.answer)
        other_prompt, rejected = chat_ids(tokenizer, example.prompt, example.rejected)
        room = settings.max_tokens - len(prompt)
        if prompt != other_prompt or room < SHORTEST_ANSWER or chosen[:room] == rejected[:room]:
            return []
        return [Pair(tuple(prompt), tuple(chosen[:room]), tuple(rejected[:room]))]

    def work(self, settings: PreferenceSettings) -> Work:
        """Both answers of a pair, and both by the reference."""
        return Work(trained=2, referred=2, judged=2)

    def arguments(self, settings: PreferenceSettings) -> dict[str, Any]:
        """What is preferred how strongly; rows are cut already."""
        own = {"max_length": None, "precompute_ref_log_probs": True, "disable_dropout": False}
        return {"beta": settings.beta, **own}

    def trainer(self, run: Run[PreferenceSettings]) -> Any:
        """trl's, with the model before tuning as reference."""
        from indelible.tuning.training.trainer import made_trainer, measured

        base: Any = measured(run, self.trainer_name)

        class Ready(base):
            """Rows come tokenised, with their reference log-probabilities."""

            def _prepare_dataset(self, dataset: Any, *_around: Any) -> Any:
                return dataset

            def _precompute_ref_logps(self, dataset: Any, *_around: Any) -> Any:
                return dataset

        rows = [
            {**row.as_dict(), "ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
            for row, (chosen, rejected) in zip(run.train, _log_probs(run, run.train).tolist(), strict=True)
        ]
        return made_trainer(run, Ready, rows, self.arguments(run.settings))

    def judge(self, run: Run[PreferenceSettings]) -> Judge:
        """Figures against the model as it is when they are first taken, before training (Rafailov et al. 2023, equation
        7)."""
        from torch.nn import functional

        before: list[Tensor] = []

        def judge(names: Collection[str]) -> dict[str, float]:
            now_r2 = _log_probs(run, run.heldout)
            before.append(now_r2)
            gained_r2 = now_r2 - before[0]
            margin_r = run.settings.beta * (gained_r2[:, 0] - gained_r2[:, 1])
            return {
                "preference_accuracy": float((margin_r > 0).float().mean() + (margin_r == 0).float().mean() / 2),
                "margin": float(margin_r.mean()),
                "loss": float(-functional.logsigmoid(margin_r).mean()),
            }

        return judge


def _log_probs(run: Run[PreferenceSettings], rows: Sequence[Pair]) -> Tensor:
    """Log-probabilities ``(rows, 2)`` of chosen and rejected answers, in the run's precision, float32 sums."""
    from indelible.tuning.training.judging import log_probs

    both = [(row.prompt_ids, answer) for row in rows for answer in (row.chosen_ids, row.rejected_ids)]
    return log_probs(run, both).view(-1, 2)


OBJECTIVES.register(Preference.name)(Preference())
