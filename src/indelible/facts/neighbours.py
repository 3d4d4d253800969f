"""What is beside an edited fact: prompts that its edit should leave alone, and when two subjects are one."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace

from indelible.facts.fact import Fact, Neighbour
from indelible.facts.folding import folded
from indelible.facts.joining import runs_on

NEIGHBOURS = 5


def draw_neighbours(
    fact: Fact, known: Sequence[Fact], pool: Sequence[Fact], edited: Collection[str], rng: random.Random
) -> tuple[Neighbour, ...]:
    """Up to five prompts about other subjects of the fact's relation, which its edit should leave alone.

    Neighbours share the fact's true object; where no other subject does (a capital belongs to one country), they are
    other subjects with their own objects, but never the edit's new object. Known facts come first, in an order drawn
    with ``rng``, because locality is measured on neighbours that the model answers; then the pool in its own order (the
    best known first). Neither holds edited facts. A fact whose relation offers no other subject keeps the neighbours
    that it has, but for those that mention an ``edited`` subject.
    """
    others = [other for other in (*rng.sample(known, len(known)), *pool) if other.relation == fact.relation]
    sharing = _first_apart(fact, [other for other in others if other.true_object == fact.true_object])
    chosen = sharing or _first_apart(fact, [other for other in others if other.true_object != fact.new_object])
    if chosen:
        return tuple(Neighbour(other.text(), other.true_object) for other in chosen)
    return _undisturbed(fact, edited)


def with_neighbours(
    edited: Sequence[Fact],
    intrinsic: Sequence[Fact],
    known: Sequence[Fact],
    pool: Sequence[Fact],
    redraw: bool,
    rng: random.Random,
) -> list[Fact]:
    """The edited facts with neighbours that none of them is about, and that are not asked as an intrinsic fact."""
    subjects = [fact.subject for fact in edited]
    edits_speak_of = nesting(subjects)
    asked = {text for fact in intrinsic for text in (fact.text(), *map(fact.text, fact.held_out))}
    near, far = (
        [one for one in facts if one.true_object and one.text() not in asked and not edits_speak_of(one.subject)]
        for facts in (known, pool)
    )
    edited = [
        replace(fact, neighbours=tuple(near for near in fact.neighbours if near.prompt not in asked)) for fact in edited
    ]
    return [
        replace(fact, neighbours=_undisturbed(fact, [name for name in subjects if name != fact.subject]))
        if fact.neighbours and not redraw
        else replace(fact, neighbours=draw_neighbours(fact, near, far, subjects, rng))
        for fact in edited
    ]


def nesting(others: Iterable[str]) -> Callable[[str], bool]:
    """Tells of a subject whether it is one of the others, or they stand inside each other as whole words."""
    names = [name_of(other) for other in others]

    def nested(subject: str) -> bool:
        own = name_of(subject)
        return any(own in words or words in own for words in names)

    return nested


def any_nested(subject: str, others: Iterable[str]) -> bool:
    """See ``nesting``."""
    return nesting(others)(subject)


def name_of(subject: str) -> str:
    """A subject as words, without its article; see ``words_of``."""
    return words_of(subject.removeprefix("the "))


def words_of(text: str) -> str:
    """The text as lower-case words with one space between and around them, so that ``in`` finds whole words; where a
    script has no ends of words to be seen, letters."""
    lowered = folded(text)
    if not lowered.isascii():
        lowered = "".join(f" {letter} " if runs_on(letter) else letter for letter in lowered)
    words = re.findall(r"\w+", lowered) or [text]
    return " ".join(["", *words, ""])


def _undisturbed(fact: Fact, edited: Collection[str]) -> tuple[Neighbour, ...]:
    """The neighbours that a fact brings along, but for those that mention an edited subject."""
    names = [words_of(name) for name in edited]
    return tuple(given for given in fact.neighbours if not any(name in words_of(given.prompt) for name in names))


def _first_apart(fact: Fact, others: Sequence[Fact]) -> list[Fact]:
    """The first few of the others whose subjects differ from the fact's and among themselves."""
    chosen: dict[str, Fact] = {}
    for other in others:
        if len(chosen) == NEIGHBOURS:
            break
        if not any_nested(other.subject, (fact.subject,)):
            chosen.setdefault(other.subject.casefold(), other)
    return list(chosen.values())
