"""Supervised fine-tuning on worked answers: the prompt is read, only the answer and the end of text bear loss.

Judged by the loss on held-out answers, and by exact match: the answer that the model writes greedily to a held-out
question is the one that was worked out. Runs are compared at the loss, which moves with every step; a small model's
exact matches come one by one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from indelible.tuning.answers import same_answer
from indelible.tuning.chat import plain_ids
from indelible.tuning.objective import OBJECTIVES, Features, Figure, Judge, Objective, Run, Work
from indelible.tuning.settings import TuningSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from indelible.tuning.task import Example


@dataclass(frozen=True)
class Answered(Features):
    """A question with its answer, also in words."""

    answer: str = ""


class Reason(Objective[TuningSettings]):
    """Loss on the answer's tokens and the end-of-text token that follows them; held-out figures are the mean per answer
    token, and the share of questions answered exactly."""

    name = "reason"
    default_task = "reason"
    needs = (("prompt", "answer"), ("prompt",))
    asks = True
    figures = (Figure("loss", "lower"), Figure("exact_match", "higher"))
    trainer_name = "SFTTrainer"

    def rows(
        self, tokenizer: PreTrainedTokenizerBase, example: Example, settings: TuningSettings, labels: Sequence[str]
    ) -> list[Answered]:
        """One row; none for an example without prompt or answer, or longer than ``max_tokens`` (a cut would lose the
        answer)."""
        if not example.prompt or not example.answer:
            return []
        row = Answered.answering(*plain_ids(tokenizer, example.prompt, example.answer), example.answer)
        return [row] if len(row.input_ids) <= settings.max_tokens else []

    def work(self, settings: TuningSettings) -> Work:
        """A held-out question is answered, and its right answer read."""
        return Work(answered=1)

    def judge(self, run: Run[TuningSettings]) -> Judge:
        """Answers are the same if their final answers are, case aside."""
        from indelible.tuning.training.judging import token_loss
        from indelible.tuning.training.writing import greedy_answers

        rows: Sequence[Answered] = run.heldout
        longest = max(len(row.input_ids) - len(row.prompt_ids) for row in rows)

        def judge(names: Collection[str]) -> dict[str, float]:
            found = {}
            if "loss" in names:
                found["loss"] = token_loss(run, rows)
            if "exact_match" in names:
                answers = greedy_answers(run, [row.prompt_ids for row in rows], longest)
                scores = [same_answer(said, row.answer) for said, row in zip(answers, rows, strict=True)]
                found["exact_match"] = sum(scores) / len(scores)
            return found

        return judge


OBJECTIVES.register(Reason.name)(Reason())
