"""What every exam asks: a fact's own prompt, its held-out wordings, and prompts near an edit that it should not change.

A neighbour's target is its own true answer, its rival the new object of the edit beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

from indelible.exam.kind import KINDS, Asked, Given, QuestionKind
from indelible.facts.fact import Fact


def own(fact: Fact, given: Given) -> Iterator[Asked]:
    """The prompt in which it is edited."""
    yield Asked(fact.text(), *given.objects(fact), given.context)


def held_out(fact: Fact, given: Given) -> Iterator[Asked]:
    """The wordings that no edit uses."""
    for template in fact.held_out:
        yield Asked(fact.text(template), *given.objects(fact), given.context)


def neighbours(fact: Fact, given: Given) -> Iterator[Asked]:
    """Those of an edited fact."""
    for one in fact.neighbours if given.fact_set == "edited" else ():
        yield Asked(one.prompt, one.answer, fact.new_object, given.context)


KINDS.register("prompt")(QuestionKind(own))
KINDS.register("paraphrase")(QuestionKind(held_out))
KINDS.register("neighbour")(QuestionKind(neighbours))
