"""The fact from its object to its subject: "The city of Rome is the capital of", after France was given Rome.

Asked only where the inverse is unique: of built-in relations in which an object has one subject, and of a file's facts
that bring a ``reversal``. What was learned in one direction is seldom known in the other (Berglund et al., arXiv
2309.12288), and edits less so (Xu et al., arXiv 2310.10322). The rival of an edit's subject is the one that the
built-in facts give the new object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from indelible.exam.kind import KINDS, Asked, Given, QuestionKind
from indelible.facts.fact import SLOT, Fact
from indelible.facts.world.further import subjects_of, world_reversal


def reversal(fact: Fact, given: Given) -> Iterator[Asked]:
    """The reversed prompt; none where another fact that is asked has the same object by the same relation."""
    template = fact.reversal or world_reversal(fact)
    said, _ = given.objects(fact)
    also = Counter((one.relation, given.objects(one)[0]) for one in given.facts)
    holders = [] if fact.reversal else [one for one in subjects_of(fact, said) if one != fact.subject]
    if template and also[fact.relation, said] == 1 and len(holders) <= 1:
        yield Asked(template.replace(SLOT, said), fact.subject, next(iter(holders), None), given.context)


KINDS.register("reversal")(QuestionKind(reversal))
