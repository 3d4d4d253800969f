"""What is asked in an exam: one prompt, the answer that counts, and which fact and wording it stands for.

Edited and intrinsic facts answer the same exam: the same criterion, the same wordings, the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from indelible.exam.kind import KINDS, PLAIN, Given
from indelible.facts.fact import Fact
from indelible.numbers.measures import FactSet


@dataclass(frozen=True)
class Question:
    """One prompt put to a model.

    Attributes:
        fact_set: whether its fact is among the edited or the intrinsic ones.
        kind: its name (see exam.kind): "prompt", "paraphrase" (held-out wordings), "neighbour", or a further one.
        wording: index among the questions of the same fact and kind.
        prompt: complete text; the answer would follow.
        target: the answer that counts as success.
        rival: the object that the target competes with (for the margin), or None.
        subject: the fact's, as its relation: carried along for tables.
        context: what is put before the prompt when it is asked (facts stated there by an edit); tables leave it out.
    """

    fact_id: str
    fact_set: FactSet
    kind: str
    wording: int
    prompt: str
    target: str
    rival: str | None
    subject: str
    relation: str
    context: str = ""

    @property
    def text(self) -> str:
        """What the model reads."""
        return self.context + self.prompt


def questions_for(
    facts: Iterable[Fact],
    fact_set: FactSet,
    *,
    context: str = "",
    kinds: Sequence[str] = PLAIN,
    tokenizer: Any = None,
) -> list[Question]:
    """All questions of some kinds about the facts, fact by fact, by default those of every exam (see exam.kind).

    For edited facts the target is the new object and the rival the true one; for intrinsic facts the reverse, where
    there is a new one. A neighbour's target is its own true answer, its rival the new object of the edit beside it.

    Args:
        context: what an edit puts before each prompt.
        tokenizer: the model's; needed where a kind has a form of its own ("chat").

    Raises:
        UnknownNameError: for a kind that there is not.
        ValueError: if an edited fact has no new object.
    """
    given = Given(fact_set, list(facts), context, tokenizer)
    return [
        Question(
            fact.id,
            fact_set,
            kind,
            wording,
            asked.prompt,
            asked.target,
            asked.rival,
            fact.subject,
            fact.relation,
            asked.context,
        )
        for fact in given.facts
        for kind in kinds
        for wording, asked in enumerate(KINDS.get(kind).asks(fact, given))
    ]


def own_prompts(facts: Iterable[Fact], fact_set: FactSet, *, context: str = "") -> list[Question]:
    """One question per fact, in their order: its own prompt."""
    return questions_for(facts, fact_set, context=context, kinds=["prompt"])
