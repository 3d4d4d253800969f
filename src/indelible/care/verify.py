"""Is an edited fact still there? Each one asked with its own prompt, by the criterion that edits are judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from indelible.exam.exam import Answer, take_exam
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact

FactState = Literal["present", "weakened", "gone"]


@dataclass(frozen=True)
class Verified:
    """What a model says of an edited fact.

    Attributes:
        fact: the fact.
        state: "present" where free generation begins with the new object; "weakened" where it does not, but the model
            still finds the new object more probable than the true one; "gone" otherwise.
        answer: all numbers of the exam.
    """

    fact: Fact
    state: FactState
    answer: Answer


def verify_facts(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    *,
    context: str = "",
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Verified]:
    """Ask each fact's own prompt.

    Args:
        model: as for ``take_exam``.
        tokenizer: the model's.
        facts: each with a new object.
        context: put before each prompt (``Edit.context``).
        progress: as for ``take_exam``.

    Raises:
        FactsError: if a prompt or an object has no tokens.
    """
    prompts = [question for question in questions_for(facts, "edited", context=context) if question.kind == "prompt"]
    answers = take_exam(model, tokenizer, prompts, progress=progress)
    return [Verified(fact, _state(answer), answer) for fact, answer in zip(facts, answers, strict=True)]


def _state(answer: Answer) -> FactState:
    if answer.success:
        return "present"
    return "weakened" if answer.margin > 0 else "gone"
