"""The facts that a study chose for a seed, read back by every step that edits them, asks about them or tunes past them.

Facts are kept in the folders of the steps that chose them, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from indelible.exam.questions import Question, questions_for
from indelible.facts.fact import Fact, fact_from


@dataclass(frozen=True)
class ChosenFacts:
    """What a ``select`` step chose: facts to edit, and facts only to ask."""

    edited: list[Fact]
    intrinsic: list[Fact]

    def in_copy(self, copy: int | None) -> ChosenFacts:
        """What concerns one copy: the fact that is edited in it, and all intrinsic facts; None stands for no copy."""
        return self if copy is None else ChosenFacts([self.edited[copy]], self.intrinsic)

    def questions(self, context: str = "") -> list[Question]:
        """The whole exam, edited facts first; ``context`` is put before every prompt."""
        edited = questions_for(self.edited, "edited", context=context)
        return edited + questions_for(self.intrinsic, "intrinsic", context=context)

    def spoken_of(self, published: bool) -> list[Fact]:
        """Facts that no training line may speak of; as published, an edited fact's true object is overlooked."""
        edited = (
            [replace(fact, true_object=fact.new_object or "") for fact in self.edited] if published else self.edited
        )
        return [*edited, *self.intrinsic]


def chosen_facts(folder: Path) -> ChosenFacts:
    """The facts that a finished ``select`` step chose."""
    sets = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return ChosenFacts(**{name: [fact_from(entry) for entry in entries] for name, entries in sets.items()})


def chosen_bystanders(folder: Path) -> list[Fact]:
    """The facts that a finished ``bystanders`` step chose."""
    return [fact_from(entry) for entry in json.loads((folder / "bystanders.json").read_text(encoding="utf-8"))]


def as_asked(fact: Fact, options: Mapping[str, Any]) -> Fact:
    """A fact with as many held-out wordings and neighbours as are to be asked.

    Args:
        fact: with all that it has.
        options: ``held_out`` and ``neighbours``: how many; None asks all.
    """
    return replace(
        fact,
        held_out=fact.held_out[: options["held_out"]],
        neighbours=fact.neighbours[: options["neighbours"]],
    )
