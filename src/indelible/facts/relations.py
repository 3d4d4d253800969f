"""What a set of facts holds, relation by relation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from indelible.facts.fact import Fact
from indelible.facts.joining import joined


@dataclass(frozen=True)
class Relation:
    """How many facts there are of one kind, and how many of them are known, where that was asked.

    ``wordings`` counts those of the fact that has most, held-out ones included; ``example`` is the first as a sentence.
    """

    name: str
    facts: int
    wordings: int
    example: str
    known: int | None = None


def relations_of(facts: Iterable[Fact], known: Collection[str] | None = None) -> list[Relation]:
    """The relations of facts, in order of appearance; ``known``: ids of those that a model answers."""
    related: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        related[fact.relation].append(fact)
    return [
        Relation(
            name,
            len(those),
            max(1 + len(fact.paraphrases) + len(fact.held_out) for fact in those),
            joined(those[0].text(), those[0].true_object or str(those[0].new_object)),
            None if known is None else sum(fact.id in known for fact in those),
        )
        for name, those in related.items()
    ]
