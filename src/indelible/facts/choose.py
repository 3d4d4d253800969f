"""Which facts a study edits and which it only asks about, and what each edit says instead of the truth.

The two sets must not touch: otherwise forgetting an intrinsic fact could be the work of an edit beside it. Everything
that is drawn comes from one seed.
"""

from __future__ import annotations

import random
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, zip_longest

from indelible.errors import FactsError
from indelible.facts.fact import Fact
from indelible.facts.folding import folded
from indelible.facts.neighbours import any_nested, name_of, nesting, with_neighbours, words_of

STRATA = {"below 0.5": 0.0, "up to 0.8": 0.5, "from 0.8": 0.8}
"""Of probabilities, with the lowest of each: an edit may stand in any of them and be held against facts like it."""


class TooFewFactsError(FactsError):
    """Facts do not suffice; ``fits``: how many edited and intrinsic ones there can be."""

    def __init__(self, what: str, fix: str, fits: tuple[int, int]) -> None:
        super().__init__(what, fix)
        self.fits = fits


def check_edits(facts: Sequence[Fact]) -> None:
    """Raise a FactsError if a fact that is to be edited has no new object, or one prompt gets two."""
    asked: dict[str, Fact] = {}
    for fact in facts:
        if not isinstance(fact, Fact):
            raise FactsError(f"{fact!r} is no fact.", "Give facts: those that read_facts returns, or Fact(...).")
        if fact.new_object is None:
            raise FactsError(f"The fact {fact.id!r} has no new object.", "Give new_object for every fact to be edited.")
        other = asked.setdefault(fact.text(), fact)
        if other.new_object != fact.new_object:
            raise FactsError(
                f"{fact.text()!r} is to be {other.new_object!r} (fact {other.id!r}) and {fact.new_object!r} (fact"
                f" {fact.id!r}).",
                "Keep one of them.",
            )


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
        raise TooFewFactsError(
            f"{n_edits} edited and {n_intrinsic} intrinsic facts were asked for, but the {of} give only "
            f"{len(edited)} and {len(intrinsic)}.",
            "Ask for fewer, or give more facts that the model knows.",
            (len(edited), len(intrinsic)),
        )
    return with_neighbours(edited, intrinsic, known, pool, redraw, rng), intrinsic


def choose_beside(
    edited: Sequence[Fact],
    known: Sequence[Fact],
    n_intrinsic: int,
    seed: int,
    *,
    pool: Sequence[Fact] = (),
    probability: Mapping[str, float] | None = None,
) -> tuple[list[Fact], list[Fact]]:
    """Draw the intrinsic facts of a study whose edited ones are named, from the facts that a model knows.

    What the edited facts bring stays as it is; neighbours are drawn for those that have none. How many intrinsic facts
    there can be does not depend on the seed. The rest is as for ``choose_sets``.

    Raises:
        TooFewFactsError: when the known facts do not suffice.
    """
    rng = random.Random(seed)
    fitting = _may_be_intrinsic(edited, known, _objects_by_relation(known), rng, redraw=True)
    drawn = _one_per_subject(fitting, rng)
    intrinsic = (_spread(drawn) if probability is None else _by_strata(drawn, probability, edited))[:n_intrinsic]
    if len(intrinsic) < n_intrinsic:
        raise TooFewFactsError(
            f"{n_intrinsic} intrinsic facts were asked for, but of {len(known)} that the model knows only "
            f"{len(intrinsic)} can be asked beside {len(edited)} edited ones: one of a subject, and none about them.",
            "Ask for fewer, or give more facts that the model knows.",
            (len(edited), len(intrinsic)),
        )
    return with_neighbours(edited, intrinsic, known, pool, False, rng), intrinsic


def some_of(facts: Sequence[Fact], count: int, seed: int) -> list[Fact]:
    """So many of the facts, drawn so that relations keep their shares; all of them in their own order."""
    if count >= len(facts):
        return list(facts)
    return _spread(random.Random(seed).sample(facts, len(facts)))[:count]


def choose_bystanders(
    pool: Sequence[Fact], edited: Sequence[Fact], intrinsic: Sequence[Fact], count: int, seed: int
) -> list[Fact]:
    """Up to ``count`` facts of the pool that no exam asks about, whose subjects an edit can be told to leave alone.

    Not drawn are subjects of edited and intrinsic facts, and those that a neighbour's prompt speaks of.
    """
    is_asked = nesting(fact.subject for fact in (*edited, *intrinsic))
    prompts = [words_of(neighbour.prompt) for fact in edited for neighbour in fact.neighbours]
    drawn = random.Random(seed).sample(pool, len(pool))
    free = (
        fact
        for fact in drawn
        if not is_asked(fact.subject) and not any(name_of(fact.subject) in text for text in prompts)
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


def _may_be_intrinsic(
    edited: Sequence[Fact],
    candidates: Sequence[Fact],
    objects: Mapping[str, Sequence[str]],
    rng: random.Random,
    redraw: bool,
) -> list[Fact]:
    """The candidates that no edit touches, with their rivals."""
    subjects = {fact.subject.casefold() for fact in edited}
    edits_speak_of = nesting(fact.subject for fact in edited)
    pairs = {frozenset((fact.true_object, fact.new_object or "")) for fact in edited}
    touched = {name.casefold() for pair in pairs for name in pair}
    fitting = []
    for fact in candidates:
        subject = fact.subject.casefold()
        if subject in touched or fact.true_object.casefold() in subjects or edits_speak_of(subject):
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
