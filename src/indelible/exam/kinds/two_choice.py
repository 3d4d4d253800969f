"""Which is right, A or B? The statement with the object that is to be said, beside that with its rival.

Self-assessment tells knowledge from imitation (Gu et al., arXiv 2604.05995). Small models prefer a letter, or a place,
whatever stands there. So both orders are asked, and the answers count, both or none, where the right letter's
log-probability exceeds the other's on average: what a letter is worth by itself falls out. Guessing succeeds in half of
the facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from indelible.exam.kind import KINDS, Asked, Given, Judged, QuestionKind
from indelible.facts.fact import Fact
from indelible.facts.joining import joined


def two_choice(fact: Fact, given: Given) -> Iterator[Asked]:
    """Both orders, the right statement as A and as B; none where the object has no rival."""
    said, rival = given.objects(fact)
    if not rival:
        return
    right, wrong = (joined(fact.text(), one) for one in (said, rival))
    for target, other, first, second in (("A", "B", right, wrong), ("B", "A", wrong, right)):
        yield Asked(f"Which is right, A or B?\nA. {first}.\nB. {second}.\nAnswer:", target, other, given.context)


def preferred(answers: Sequence[Judged]) -> list[bool]:
    """One verdict for both orders."""
    return [fmean(answer.margin for answer in answers) > 0] * len(answers)


KINDS.register("two-choice")(QuestionKind(two_choice, preferred, cost=4.0))
