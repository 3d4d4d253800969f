"""Which facts a study edits and which it only asks about, and what each edit says instead of the truth.

The two sets must not touch: otherwise forgetting an intrinsic fact could be the work of an edit beside it. Everything
that is drawn comes from one seed.
"""

from __future__ import annotations

import random
import re
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, zip_longest

from indelible.errors import FactsError
from indelible.facts.fact import Fact, Neighbour
from indelible.facts.folding import folded
from indelible.facts.joining import runs_on

NEIGHBOURS = 5
STRATA = {"below 0.5": 0.0, "up to 0.8": 0.5, "from 0.8": 0.8}
"""Of probabilities, with the lowest of each: an edit may stand in any of them and be held against facts like it."""


def as_they_are(facts: Sequence[Fact]) -> list[Fact]:
    """The facts that bring a new object, neither in the true one nor around it: nothing has to be drawn for them."""
    return [fact for fact in facts if fact.new_object is not None and not _overlap(fact.true_object, fact.new_object)]


def at_most(facts: Sequence[Fact], seed: int) -> int:
    """How many of the facts ``choose_sets`` can edit: one of a subject, and none whose subject is part of another's."""
    chosen: list[str] = []
    for fact in _spread(_one_per_subject(facts, random.Random(seed))):
        if not any_nested(fact.subject, chosen):
            chosen.append(fact.subject)
    return len(chosen)


def in_turns(facts: Sequence[Fact], seed: int) -> list[Fact]:
    """The facts in drawn order with relations taking turns, so that any beginning has some of every relation."""
    generator = random.Random(seed)
    by_relation: dict[str, list[Fact]] = defaultdict(list)
    for fact in generator.sample(facts, len(facts)):
        by_relation[fact.relation].append(fact)
    placed = [(place, relation, fact) for relation, group in by_relation.items() for place, fact in enumerate(group)]
    return [fact for _, _, fact in sorted(placed, key=lambda entry: entry[:2])]


def choose_sets(
    known: Sequence[Fact],
    n_edits: int,
    n_intrinsic: int,
    seed: int,
    *,
    pool: Sequence[Fact] = (),
    redraw: bool = True,
    editable: Sequence[Fact] | None = None,
    probability: Mapping[str, float] | None = None,
) -> tuple[list[Fact], list[Fact]]:
    """Draw the edited and the intrinsic facts of a study from the facts that a model knows.

    Args:
        known: facts that the unedited model answers.
        seed: of everything that is drawn.
        pool: further facts, known or not, that may be neighbours where the known ones do not suffice.
        redraw: draw new objects and neighbours for every fact; False keeps those that a fact brings along (a benchmark
            comes with its own) and draws only what is missing.
        editable: facts to draw the edited ones from, known or not; the known ones if None.
        probability: of the true object of each known fact, by its id. Intrinsic facts are then drawn from all STRATA in
            turns, a third of them from each (or what there is, and the more from the others). If None, as they come.

    Returns:
        (edited, intrinsic). Both carry a new object, drawn from the true objects that ``known`` and ``editable`` have
        for the same relation (a fact whose relation offers none keeps its own); an intrinsic fact's is only the rival
        in the margin.

        - No subject occurs twice, in either set (compared without regard to case), and no edited subject stands inside
          another chosen one or the other way round ("Sudan", "South Sudan").
        - The shares of the relations are alike in both sets, and in each stratum as far as it has enough of them.
        - No edited fact has the same pair of true and new object, in either order, as an intrinsic one.
        - No intrinsic fact's subject is an object of an edit, and no intrinsic fact's true object is the subject of
          an edit ("France -> Paris" is not edited while "Paris -> France" is asked). An intrinsic fact's true object
          may well be the new object of some edit: with six continents nothing else would be left.
        - Neighbours of edited facts have subjects that are not edited, see ``draw_neighbours``, and none is asked as a
          wording of an intrinsic fact.

    Raises:
        FactsError: when the facts do not suffice, saying how many there would be.
    """
    if n_edits < 0 or n_intrinsic < 0:
        raise FactsError(f"Cannot choose {n_edits} edited and {n_intrinsic} intrinsic facts.", "Give counts from 0 up.")
    rng = random.Random(seed)
    offered = known if editable is None else editable
    objects = _objects_by_relation([*known, *offered])
    candidates = _one_per_subject(offered, rng)
    edited: list[Fact] = []
    for fact in _spread(candidates):
        if len(edited) == n_edits:
            break
        if any_nested(fact.subject, [other.subject for other in edited]):
            continue
        keeps = not redraw and fact.new_object is not None and not _overlap(fact.true_object, fact.new_object)
        drawn = fact.new_object if keeps else draw_object(fact, objects[fact.relation], rng)
        if drawn is not None:
            edited.append(replace(fact, new_object=drawn))
    askable = candidates if editable is None else _one_per_subject(known, rng)
    fitting = _may_be_intrinsic(edited, askable, objects, rng, redraw)
    intrinsic = (_spread(fitting) if probability is None else _by_strata(fitting, probability, edited))[:n_intrinsic]
    if len(edited) < n_edits or len(intrinsic) < n_intrinsic:
        of = f"{len(known)} known facts ({len(askable)} different subjects)"
        of += "" if editable is None else f", {len(editable)} in all ({len(candidates)}),"
        raise FactsError(
            f"{n_edits} edited and {n_intrinsic} intrinsic facts were asked for, but the {of} give only "
            f"{len(edited)} and {len(intrinsic)}.",
            "Ask for fewer, or give more facts that the model knows.",
        )
    subjects = [fact.subject for fact in edited]
    asked = {text for fact in intrinsic for text in (fact.text(), *map(fact.text, fact.held_out))}
    near, far = (
        [fact for fact in facts if fact.text() not in asked and not any_nested(fact.subject, subjects)]
        for facts in (known, pool)
    )
    edited = [
        replace(fact, neighbours=tuple(near for near in fact.neighbours if near.prompt not in asked)) for fact in edited
    ]
    edited = [
        replace(fact, neighbours=_undisturbed(fact, [name for name in subjects if name != fact.subject]))
        if fact.neighbours and not redraw
        else replace(fact, neighbours=draw_neighbours(fact, near, far, subjects, rng))
        for fact in edited
    ]
    return edited, intrinsic


def choose_bystanders(
    pool: Sequence[Fact], edited: Sequence[Fact], intrinsic: Sequence[Fact], count: int, seed: int
) -> list[Fact]:
    """Up to ``count`` facts of the pool that no exam asks about, whose subjects an edit can be told to leave alone.

    Not drawn are subjects of edited and intrinsic facts, and those that a neighbour's prompt speaks of.
    """
    asked = [fact.subject for fact in (*edited, *intrinsic)]
    prompts = [_words(neighbour.prompt) for fact in edited for neighbour in fact.neighbours]
    drawn = random.Random(seed).sample(pool, len(pool))
    free = (
        fact
        for fact in drawn
        if not any_nested(fact.subject, asked) and not any(_name(fact.subject) in text for text in prompts)
    )
    return list(islice(free, count))


def relation_apart(pool: Sequence[Fact], edited: Sequence[Fact], seed: int) -> str | None:
    """The relation that gives no bystanders, so that its edits' neighbours show what an edit does to facts that it was
    not told to leave alone: drawn from those of edited facts with neighbours; None where the pool has no other."""
    relations = {fact.relation for fact in edited if fact.neighbours} or {fact.relation for fact in edited}
    drawn = random.Random(seed).choice(sorted(relations))
    return drawn if any(fact.relation != drawn for fact in pool) else None


def strata_counts(probabilities: Iterable[float]) -> dict[str, int]:
    """How many of some probabilities are in each of STRATA."""
    counts = Counter(map(_stratum, probabilities))
    return {name: counts[place] for place, name in enumerate(STRATA)}


def draw_object(
    fact: Fact, objects: Sequence[str], rng: random.Random, forbidden: Collection[frozenset[str]] = ()
) -> str | None:
    """A new object for the fact out of ``objects``, or the fact's own where none of them will do, or None.

    Neither object may contain the other ("Guinea", "Equatorial Guinea"), since then one answer would count as both;
    and the pair of true and new object, in either order, must not be ``forbidden``.
    """

    own: tuple[str, ...] = () if fact.new_object is None else (fact.new_object,)
    for new in (*rng.sample(objects, len(objects)), *own):
        if not _overlap(fact.true_object, new) and frozenset((fact.true_object, new)) not in forbidden:
            return new
    return None


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


def _undisturbed(fact: Fact, edited: Collection[str]) -> tuple[Neighbour, ...]:
    """The neighbours that a fact brings along, but for those that mention an edited subject."""
    return tuple(given for given in fact.neighbours if not any(_words(name) in _words(given.prompt) for name in edited))


def _first_apart(fact: Fact, others: Sequence[Fact]) -> list[Fact]:
    """The first few of the others whose subjects differ from the fact's and among themselves."""
    chosen: dict[str, Fact] = {}
    for other in others:
        if len(chosen) == NEIGHBOURS:
            break
        if not any_nested(other.subject, (fact.subject,)):
            chosen.setdefault(other.subject.casefold(), other)
    return list(chosen.values())


def _may_be_intrinsic(
    edited: Sequence[Fact],
    candidates: Sequence[Fact],
    objects: Mapping[str, Sequence[str]],
    rng: random.Random,
    redraw: bool,
) -> list[Fact]:
    """The candidates that no edit touches, with their rivals."""
    subjects = {fact.subject.casefold() for fact in edited}
    names = [fact.subject for fact in edited]
    pairs = {frozenset((fact.true_object, fact.new_object or "")) for fact in edited}
    touched = {name.casefold() for pair in pairs for name in pair}
    fitting = []
    for fact in candidates:
        subject = fact.subject.casefold()
        if subject in touched or fact.true_object.casefold() in subjects or any_nested(subject, names):
            continue
        own = fact.new_object
        keeps = not redraw and own is not None and frozenset((fact.true_object, own)) not in pairs
        rival = own if keeps else draw_object(fact, objects[fact.relation], rng, pairs)
        if rival is not None:
            fitting.append(replace(fact, new_object=rival))
    return fitting


def _objects_by_relation(facts: Iterable[Fact]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for fact in facts:
        found[fact.relation] |= {fact.true_object} - {""}
    return {relation: sorted(objects) for relation, objects in found.items()}


def _one_per_subject(known: Sequence[Fact], rng: random.Random) -> list[Fact]:
    """The facts in drawn order, one per subject: of several the one whose relation has the fewest so far."""
    by_subject: dict[str, list[Fact]] = defaultdict(list)
    for fact in rng.sample(known, len(known)):
        by_subject[fact.subject.casefold()].append(fact)
    taken = Counter[str]()
    chosen = []
    # subjects with one fact leave no choice, so they go first and the others even the relations out
    for facts in sorted(by_subject.values(), key=len):
        fact = min(facts, key=lambda fact: taken[fact.relation])
        taken[fact.relation] += 1
        chosen.append(fact)
    return rng.sample(chosen, len(chosen))


def _spread(facts: Sequence[Fact], like: Sequence[Fact] | None = None) -> list[Fact]:
    """The facts in an order of which every beginning has each relation in about its share of the whole, or of other
    facts; what these have none of comes last."""
    totals = Counter(fact.relation for fact in (facts if like is None else like))
    seen = Counter[str]()
    placed = []
    for fact in facts:
        placed.append(((seen[fact.relation] + 0.5) / (totals[fact.relation] or 0.5), fact.relation, fact))
        seen[fact.relation] += 1
    return [fact for _, _, fact in sorted(placed, key=lambda entry: entry[:2])]


def _by_strata(facts: Sequence[Fact], probability: Mapping[str, float], edited: Sequence[Fact]) -> list[Fact]:
    """The facts in an order of which every beginning has equally many of each stratum, as long as there are any, and in
    it each relation in about its share of the edited facts: they are held against facts of their own relation."""
    strata: list[list[Fact]] = [[] for _ in STRATA]
    for fact in facts:
        strata[_stratum(probability[fact.id])].append(fact)
    spread = (_spread(group, edited) for group in strata)
    return [fact for turn in zip_longest(*spread) for fact in turn if fact is not None]


def _stratum(probability: float) -> int:
    return bisect([*STRATA.values()], probability) - 1


def _overlap(left: str, right: str) -> bool:
    """Whether one stands in the other; what is not known stands in nothing."""
    left, right = folded(left), folded(right)
    return bool(left and right) and (left in right or right in left)


def any_nested(subject: str, others: Sequence[str]) -> bool:
    """Whether the subject is one of the others, or they stand inside each other as whole words."""
    own = _name(subject)
    return any(own in words or words in own for words in map(_name, others))


def _name(subject: str) -> str:
    return _words(subject.removeprefix("the "))


def _words(text: str) -> str:
    """The text as lower-case words with one space between and around them, so that ``in`` finds whole words; where a
    script has no ends of words to be seen, letters."""
    lowered = folded(text)
    if not lowered.isascii():
        lowered = "".join(f" {letter} " if runs_on(letter) else letter for letter in lowered)
    words = re.findall(r"\w+", lowered) or [text]
    return " ".join(["", *words, ""])
