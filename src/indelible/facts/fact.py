"""A fact as every part of indelible sees it: a subject, a relation, wordings, and the objects that fill them.

Readers and the built-in world facts produce these; editors change them inside a model; the exam asks about them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indelible.facts.folding import folded
from indelible.facts.joining import is_unspaced

SLOT = "{}"


@dataclass(frozen=True)
class Neighbour:
    """A complete prompt (no slot, no trailing space) near an edited fact, which the edit should leave alone."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Fact:
    """One (subject, relation, object) with the wordings in which it is edited and asked.

    Attributes:
        id: stable identifier, unique within a set of facts.
        subject: as it appears in the text, e.g. "France".
        relation: short name shared by all facts of the relation, e.g. "capital".
        prompt: template with one slot for the subject, e.g. "The capital of {} is"; the object follows
            (see ``joining`` for the space between).
        true_object: what the world says; may be empty where a fact is only edited, and no world's was found.
        new_object: what an edit makes of it; None for facts that are only asked.
        paraphrases: further templates (each with one slot) that may be used *in* an edit.
        held_out: templates, or complete texts without a slot, kept apart for judging generalization.
        neighbours: prompts that an edit of this fact should not disturb.
        reversal: template with one slot for the object, after which the subject follows; given only where no other
            subject has the object, e.g. "The city of {} is the capital of".
        source: where the fact came from, e.g. "countryinfo" or "counterfact.jsonl:17".
    """

    id: str
    subject: str
    relation: str
    prompt: str
    true_object: str
    new_object: str | None = None
    paraphrases: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    source: str = ""
    reversal: str = ""

    def __repr__(self) -> str:
        new = "" if self.new_object is None else f" -> {self.new_object!r}"
        return f"Fact({self.id!r}: {self.text()!r} {self.true_object!r}{new})"

    def text(self, template: str | None = None) -> str:
        """The prompt (or another wording) with the subject filled in."""
        return (self.prompt if template is None else template).replace(SLOT, self.subject)


def entry_of(fact: Fact) -> dict[str, Any]:
    """A fact as plain values, which ``fact_from`` reads back; without a reversal, where it has none."""
    entry = vars(fact) | {"neighbours": tuple(dict(vars(neighbour)) for neighbour in fact.neighbours)}
    return entry if fact.reversal else {name: value for name, value in entry.items() if name != "reversal"}


def fact_from(entry: Mapping[str, Any]) -> Fact:
    """A fact out of what ``entry_of`` made of it, also by way of JSON.

    Raises:
        TypeError, KeyError: if the entry is not that of a fact.
    """
    lists = {name: tuple(entry[name]) for name in ("paraphrases", "held_out")}
    neighbours = tuple(Neighbour(**neighbour) for neighbour in entry["neighbours"])
    return Fact(**{**entry, **lists, "neighbours": neighbours})


def taken_for(said: str, wanted: str) -> bool:
    """Whether who says the one object is found to have said the other: "New York City" begins with "New York".

    What an unedited model says would then count as an edit's success; exam.criterion has the rule in full.
    """
    return any(
        given.startswith(name) and (is_unspaced(name[-1]) or not re.match(r"\w|[-.,]\w", given[len(name) :]))
        for given in _bare(said)
        for name in _bare(wanted)
        if name
    )


def _bare(name: str) -> set[str]:
    """With and without its article, as far as marks around it, and what is folded, make no difference."""
    bare = re.sub(r"^[\W_]*|[\W_]*$", "", folded(name))
    return {bare, re.sub(r"^(the|an|a) ", "", bare)}
