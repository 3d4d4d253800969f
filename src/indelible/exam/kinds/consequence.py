"""What follows from a fact together with another: the capital of the country in which an edited city now lies.

One hop, from the built-in facts: whoever moves a city to another country changes the capital, the continent, the
language and the currency of its country (portability; Zhong et al., arXiv 2305.14795). The target is what the built-in
facts say of the new country, the rival what they say of the true one; where they say the same, nothing follows. What a
model can make of such a prompt at all is what it makes of it for intrinsic facts.
"""

from __future__ import annotations

from collections.abc import Iterator

from indelible.exam.kind import KINDS, Asked, Given, QuestionKind
from indelible.facts.fact import SLOT, Fact
from indelible.facts.world.further import world_hops, world_object


def consequences(fact: Fact, given: Given) -> Iterator[Asked]:
    """One prompt for each relation of the object that the built-in facts know and that tells it from its rival."""
    said, other = given.objects(fact)
    for relation, template in world_hops(fact).items():
        found, rival = (None if one is None else world_object(relation, one) for one in (said, other))
        if found is not None and found != rival:
            yield Asked(template.replace(SLOT, fact.subject), found, rival, given.context)


KINDS.register("consequence")(QuestionKind(consequences))
