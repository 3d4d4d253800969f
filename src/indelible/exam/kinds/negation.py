"""The prompt negated: "The capital city of France is not". An edit should not put its object there.

An answer counts that does not start with the object that the fact asserts: the criterion of Kassner & Schütze (arXiv
1911.03343), by which a model that completes a statement and its negation alike has not read the negation. Edits are
said to fail it (Liu et al., arXiv 2510.00625). A model that knows nothing of the fact succeeds, and many succeed seldom
with what they know best; so read edits beside intrinsic facts, and each beside its base phase. The probability of the
object in the rows says whether an edit raised it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from indelible.exam.kind import KINDS, Asked, Given, Judged, QuestionKind
from indelible.facts.fact import SLOT, Fact

_VERB = re.compile(r"\b(?:is|are|was|were)\b")


def negated(template: str) -> str | None:
    """A prompt's template with *not* behind its verb; None where that is no form of *be*, or it is a question.

    Of several, the verb is meant that ends the prompt.
    """
    verbs = list(_VERB.finditer(template.replace(SLOT, "\0\0")))
    if not verbs or "?" in template or (len(verbs) > 1 and verbs[-1].end() < len(template)):
        return None
    at = verbs[-1].end()
    return f"{template[:at]} not{template[at:]}"


def negation(fact: Fact, given: Given) -> Iterator[Asked]:
    """The own prompt negated, where it can be."""
    template = negated(fact.prompt)
    if template is not None:
        yield Asked(fact.text(template), *given.objects(fact), given.context)


def other_objects(answers: Sequence[Judged]) -> list[bool]:
    """Answers that start with something else."""
    return [not answer.success for answer in answers]


KINDS.register("negation")(QuestionKind(negation, other_objects))
