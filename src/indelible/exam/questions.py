"""What is asked in an exam: one prompt, the answer that counts, and which fact and wording it stands for.

Edited and intrinsic facts answer the same exam: the same criterion, the same wordings, the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from indelible.facts.fact import Fact
from indelible.numbers.measures import FactSet, Kind


@dataclass(frozen=True)
class Question:
    """One prompt put to a model.

    Attributes:
        fact_set: whether its fact is among the edited or the intrinsic ones.
        kind: the fact's own prompt, a held-out paraphrase, or a neighbour.
        wording: index among the questions of the same fact and kind.
        prompt: complete text; the answer would follow.
        target: the answer that counts as success.
        rival: the object that the target competes with (for the margin), or None.
        subject: the fact's, as its relation: carried along for tables.
        context: what is put before the prompt when it is asked (facts stated there by an edit); tables leave it out.
    """

    fact_id: str
    fact_set: FactSet
    kind: Kind
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


def questions_for(facts: Iterable[Fact], fact_set: FactSet, *, context: str = "") -> list[Question]:
    """All questions about the facts: own prompt, held-out paraphrases, neighbours; ``context`` is put before each.

    For edited facts the target is the new object and the rival the true one; for intrinsic facts the reverse, where
    there is a new one. A neighbour's target is its own true answer, its rival the new object of the edit beside it.
    """
    questions = []
    for fact in facts:
        target, rival = fact.true_object, fact.new_object
        if fact_set == "edited":
            if fact.new_object is None:
                raise ValueError(f"fact {fact.id} has no new object, so it cannot be asked as an edited fact")
            target, rival = fact.new_object, fact.true_object or None
        neighbours = fact.neighbours if fact_set == "edited" else ()
        asked: list[tuple[Kind, int, str, str, str | None]] = [
            ("prompt", 0, fact.text(), target, rival),
            *(("paraphrase", n, fact.text(template), target, rival) for n, template in enumerate(fact.held_out)),
            *(("neighbour", n, one.prompt, one.answer, fact.new_object) for n, one in enumerate(neighbours)),
        ]
        questions += [Question(fact.id, fact_set, *one, fact.subject, fact.relation, context) for one in asked]
    return questions


def own_prompts(facts: Iterable[Fact], fact_set: FactSet, *, context: str = "") -> list[Question]:
    """One question per fact, in their order: those of ``questions_for`` that are its own prompt."""
    return [question for question in questions_for(facts, fact_set, context=context) if question.kind == "prompt"]
