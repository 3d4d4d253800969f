"""Edited and intrinsic facts: what must hold for any seed."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from indelible.errors import FactsError
from indelible.facts.choose import (
    TooFewFactsError,
    choose_beside,
    choose_bystanders,
    choose_sets,
    draw_object,
    relation_apart,
    strata_counts,
)
from indelible.facts.fact import Fact, Neighbour
from indelible.facts.neighbours import draw_neighbours

SEEDS = range(6)


@pytest.fixture(scope="module")
def known(world: list[Fact]) -> list[Fact]:
    """A third of the world, as if a model knew just that."""
    return random.Random(5).sample(world, len(world) // 3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sets_do_not_touch(known: list[Fact], world: list[Fact], seed: int) -> None:
    edited, intrinsic = choose_sets(known, 30, 70, seed, pool=world)
    assert (len(edited), len(intrinsic)) == (30, 70)
    ids = {fact.id for fact in known}
    assert {fact.id for fact in (*edited, *intrinsic)} <= ids
    subjects = [fact.subject.casefold() for fact in (*edited, *intrinsic)]
    assert len(set(subjects)) == 100
    for fact in edited:
        inside = re.compile(rf"\b{re.escape(fact.subject.removeprefix('the '))}\b", re.IGNORECASE)
        assert sum(bool(inside.search(subject)) for subject in subjects) == 1, fact.subject

    def pairs(facts: list[Fact]) -> set[frozenset[str]]:
        return {frozenset((fact.true_object, fact.new_object or "")) for fact in facts}

    assert not pairs(edited) & pairs(intrinsic)
    objects_of_edits = {name for fact in edited for name in (fact.true_object, fact.new_object)}
    assert not objects_of_edits & {fact.subject for fact in intrinsic}
    assert not {fact.true_object for fact in intrinsic} & {fact.subject for fact in edited}


@pytest.mark.parametrize("seed", SEEDS)
def test_new_objects_are_sayable_and_different(known: list[Fact], seed: int) -> None:
    objects = defaultdict(set)
    for fact in known:
        objects[fact.relation].add(fact.true_object)
    edited, intrinsic = choose_sets(known, 30, 70, seed)
    for fact in (*edited, *intrinsic):
        assert fact.new_object in objects[fact.relation]
        true, new = fact.true_object.casefold(), (fact.new_object or "").casefold()
        assert true not in new and new not in true


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbours_are_not_edited_and_mostly_known(known: list[Fact], world: list[Fact], seed: int) -> None:
    edited, _ = choose_sets(known, 30, 30, seed, pool=world)
    answers = {fact.text(): fact for fact in world}
    known_ids = {fact.id for fact in known}
    edited_subjects = {fact.subject for fact in edited}
    for fact in edited:
        others = [answers[neighbour.prompt] for neighbour in fact.neighbours]
        assert 1 <= len(others) <= 5
        assert len({other.subject for other in others}) == len(others)
        assert not {other.subject for other in others} & edited_subjects
        assert [other.true_object for other in others] == [neighbour.answer for neighbour in fact.neighbours]
        assert {other.relation for other in others} == {fact.relation}
        is_known = [other.id in known_ids for other in others]
        assert is_known == sorted(is_known, reverse=True), "known neighbours come first"
        assert fact.new_object not in {neighbour.answer for neighbour in fact.neighbours}


def test_seeds_decide_and_repeat(known: list[Fact], world: list[Fact]) -> None:
    first = choose_sets(known, 20, 40, 3, pool=world)
    assert first == choose_sets(known, 20, 40, 3, pool=world)
    assert first != choose_sets(known, 20, 40, 4, pool=world)


def test_relations_have_alike_shares_in_both_sets(world: list[Fact]) -> None:
    edited, intrinsic = choose_sets(world, 60, 240, 0)
    shares = [Counter(fact.relation for fact in facts) for facts in (edited, intrinsic)]
    assert len(shares[0]) >= 8 and len(shares[1]) >= 8
    for relation in {*shares[0], *shares[1]}:
        assert abs(shares[0][relation] / 60 - shares[1][relation] / 240) < 0.1, relation


@pytest.mark.parametrize("seed", SEEDS)
def test_beside_named_edits_no_fact_about_them_is_asked_and_as_many_can_be_whatever_the_seed(
    known: list[Fact], world: list[Fact], seed: int
) -> None:
    named = [replace(fact, neighbours=(), paraphrases=("{} it is",)) for fact in world[::40]]
    edited, intrinsic = choose_beside(named, known, 20, seed, pool=world)
    assert [replace(fact, neighbours=()) for fact in edited] == named and len(intrinsic) == 20
    assert sum(bool(fact.neighbours) for fact in edited) > len(edited) / 2
    subjects = {fact.subject for fact in named}
    assert not subjects & {fact.subject for fact in intrinsic} and len({fact.subject for fact in intrinsic}) == 20
    assert not {fact.true_object for fact in intrinsic} & subjects
    with pytest.raises(TooFewFactsError) as error:
        choose_beside(named, known, len(known), seed)
    first = choose_beside(named, known, error.value.fits[1], SEEDS[0])
    assert len(first[1]) == error.value.fits[1] > 20


def few(*triples: tuple[str, str]) -> list[Fact]:
    return [Fact(subject, subject, "home", "{} lives in", place) for subject, place in triples]


def test_what_has_no_true_object_is_no_neighbour() -> None:
    """Where some of the named facts are edited, the others are in the pool."""
    named = [Fact(f"n{n}", f"Zorb{n}", "", "The capital of {} is", "", new_object="Bra") for n in range(4)]
    known = [Fact(f"k{n}", f"Arvo{n}", "", "The capital of {} is", f"Nor{n}") for n in range(4)]
    edited, _ = choose_beside(named[:2], known, 1, 0, pool=[*named, *known])
    asked = [near for fact in edited for near in fact.neighbours]
    assert asked and all(near.answer.startswith("Nor") for near in asked)


def test_too_few_facts_say_how_many_there_are() -> None:
    facts = few(("Ann", "Rome"), ("Bob", "Oslo"), ("ann", "Bonn"))
    with pytest.raises(FactsError, match=r"2 edited and 3 intrinsic .* 3 known facts \(2 different subjects\)"):
        choose_sets(facts, 2, 3, 0)
    assert [len(chosen) for chosen in choose_sets(facts, 1, 0, 0)] == [1, 0]
    assert [len(chosen) for chosen in choose_sets(facts, 0, 2, 0)] == [0, 2]
    with pytest.raises(FactsError):
        choose_sets(facts, -1, 0, 0)


def test_a_single_object_cannot_be_edited_unless_the_fact_brings_a_new_one() -> None:
    facts = few(("Ann", "Rome"), ("Bob", "Rome"))
    with pytest.raises(FactsError, match="only 0 and 0"):
        choose_sets(facts, 1, 0, 0)
    own = Fact("Cid", "Cid", "home", "{} lives in", "Rome", new_object="Lund")
    assert choose_sets([own], 1, 0, 0)[0][0].new_object == "Lund"


def test_intrinsic_pairs_avoid_edited_pairs() -> None:
    # two objects make one pair, so once it is edited nothing else may be asked
    with pytest.raises(FactsError, match="only 1 and 0"):
        choose_sets(few(("Ann", "Rome"), ("Bob", "Oslo"), ("Cid", "Rome")), 1, 1, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_names_inside_names_count_as_the_same_subject(seed: int) -> None:
    facts = few(("Sudan", "Rome"), ("South Sudan", "Oslo"), ("the Sudan", "Bonn"), ("Sudanese", "Lund"))
    edited, _ = choose_sets(facts, 2, 0, seed)
    assert "Sudanese" in {fact.subject for fact in edited}
    with pytest.raises(FactsError, match="only 2 and 0"):
        choose_sets(facts, 2, 1, seed)


def test_objects_that_contain_each_other_are_not_exchanged() -> None:
    rng = random.Random(0)
    fact = Fact("x", "Malabo", "country", "{} is in", "Guinea")
    assert draw_object(fact, ["Equatorial Guinea", "Guinea", "guinea"], rng) is None
    assert draw_object(fact, ["Equatorial Guinea", "Chad"], rng) == "Chad"
    assert draw_object(fact, ["Chad"], rng, [frozenset(("Chad", "Guinea"))]) is None


def test_neighbours_fall_back_to_other_objects_and_then_to_given_ones() -> None:
    rng = random.Random(0)
    ann, bob, cid, dan = few(("Ann", "Rome"), ("Bob", "Oslo"), ("Cid", "Rome"), ("Dan", "Lund"))
    edit = Fact("Ann", "Ann", "home", "{} lives in", "Rome", "Lund", neighbours=(Neighbour("Eve lives in", "Rome"),))

    def texts(*others: Fact, edited: tuple[str, ...] = ()) -> set[str]:
        return {neighbour.prompt for neighbour in draw_neighbours(edit, others, (), edited, rng)}

    assert texts(ann, bob, cid, dan) == {"Cid lives in"}
    assert texts(ann, bob, dan) == {"Bob lives in"}, "the new object's own subject says nothing"
    assert texts() == {"Eve lives in"}
    assert texts(edited=("eve",)) == set()


def test_a_neighbour_may_ask_another_thing_of_its_own_facts_subject_alone() -> None:
    near = tuple(Neighbour(f"The gender of {name} is", "female") for name in ("Ada", "Ida"))
    known = [Fact(name, name, "home", "{} lives in", "Ulm", "Ely", neighbours=near) for name in ("Ada", "Ida")]
    edited, _ = choose_sets(known, 2, 0, 0, redraw=False)
    assert {fact.subject: fact.neighbours for fact in edited} == {"Ada": near[:1], "Ida": near[1:]}


@pytest.mark.parametrize(
    ("inner", "outer", "other"), [("東京", "東京都", "大阪"), ("한국", "한국은행", "부산"), ("จีน", "จีนใต้", "ลาว")]
)
def test_in_scripts_without_spaces_names_are_inside_names_too(inner: str, outer: str, other: str) -> None:
    facts = few((inner, "Rome"), (outer, "Oslo"), (other, "Bonn"))
    assert {fact.subject for fact in choose_sets(facts, 2, 0, 0)[0]} in ({inner, other}, {outer, other})
    with pytest.raises(FactsError, match="only 2 and 0"):
        choose_sets(facts, 2, 1, 0)
    near = (Neighbour(f"ค{inner}の", "Rome"), Neighbour(f"{other}の", "Bonn"))
    assert draw_neighbours(replace(facts[1], neighbours=near), (), (), (inner,), random.Random(0)) == near[1:]


@pytest.mark.parametrize("seed", SEEDS)
def test_intrinsic_facts_are_a_third_of_each_stratum_and_spread_over_relations(known: list[Fact], seed: int) -> None:
    generator = random.Random(seed)
    probability = {fact.id: generator.choice((0.1, 0.49, 0.5, 0.79, 0.8, 0.99, 0.99, 0.99)) for fact in known}
    edited, intrinsic = choose_sets(known, 20, 60, seed, probability=probability)
    assert list(strata_counts(probability[fact.id] for fact in intrinsic).values()) == [20, 20, 20]
    shares = Counter(fact.relation for fact in edited)
    for low, high in ((0, 0.5), (0.5, 0.8), (0.8, 1)):
        offered = Counter(fact.relation for fact in known if low <= probability[fact.id] < high)
        drawn = Counter(fact.relation for fact in intrinsic if low <= probability[fact.id] < high)
        enough = [relation for relation, count in shares.items() if offered[relation] > 2 * count + 5]
        assert enough
        for relation in enough:
            assert shares[relation] - 1 <= drawn[relation], relation
    unstratified, _ = choose_sets(known, 20, 60, seed)
    assert [(fact.id, fact.new_object) for fact in edited] == [(fact.id, fact.new_object) for fact in unstratified]


def test_a_stratum_of_too_few_is_filled_from_the_others(known: list[Fact]) -> None:
    probability = {fact.id: 0.9 if index % 3 else 0.6 for index, fact in enumerate(known)}
    probability |= {fact.id: 0.2 for fact in random.Random(0).sample(known, 5)}
    _, intrinsic = choose_sets(known, 0, 60, 0, probability=probability)
    low, *rest = strata_counts(probability[fact.id] for fact in intrinsic).values()
    assert 0 < low <= 5 and abs(rest[0] - rest[1]) <= 1 and low + sum(rest) == 60


@pytest.mark.parametrize("seed", SEEDS)
def test_no_neighbour_is_asked_as_an_intrinsic_fact(known: list[Fact], world: list[Fact], seed: int) -> None:
    edited, intrinsic = choose_sets(known, 30, 120, seed, pool=world)
    asked = {text for fact in intrinsic for text in (fact.text(), *map(fact.text, fact.held_out))}
    assert not asked & {near.prompt for fact in edited for near in fact.neighbours}
    assert sum(bool(fact.neighbours) for fact in edited) > 25


def test_a_neighbour_that_a_fact_brings_along_is_not_asked_as_an_intrinsic_one() -> None:
    facts = few(("Ann", "Rome"), ("Bob", "Oslo"))
    near = tuple(Neighbour(f"{name} lives in", "Ulm") for name in ("Ann", "Bob", "Cid"))
    known = [replace(fact, new_object="Bonn", neighbours=near) for fact in facts]
    (edited,), (intrinsic,) = choose_sets(known, 1, 1, 0, redraw=False)
    assert [one.prompt for one in edited.neighbours] == [f"{edited.subject} lives in", "Cid lives in"]
    assert intrinsic.subject != edited.subject


def test_facts_that_no_model_knows_can_be_edited_and_are_not_asked_as_known() -> None:
    facts = few(*((f"N{index}", f"Place{index % 5}") for index in range(40)))
    known = facts[:20]
    edited, intrinsic = choose_sets(known, 10, 10, 0, editable=facts)
    assert 0 < sum(fact.id in {one.id for one in known} for fact in edited) < 10
    assert {fact.id for fact in intrinsic} <= {fact.id for fact in known} - {fact.id for fact in edited}
    with pytest.raises(
        FactsError, match=r"20 known facts \(20 different subjects\), 40 in all \(40\), give only 10 and"
    ):
        choose_sets(known, 10, 20, 0, editable=facts)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_relation_of_edited_facts_gives_no_bystanders(world: list[Fact], seed: int) -> None:
    edited, intrinsic = choose_sets(world, 20, 20, seed)
    apart = relation_apart(world, edited, seed)
    assert apart in {fact.relation for fact in edited} and apart == relation_apart(world, edited[::-1], seed)
    pool = [fact for fact in world if fact.relation != apart]
    assert len(choose_bystanders(pool, edited, intrinsic, 400, seed)) == 400
    alone = [fact for fact in world if fact.relation == edited[0].relation]
    assert relation_apart(alone, edited[:1], seed) is None


def test_names_that_differ_in_accents_are_the_same() -> None:
    facts = few(("São Tomé", "Rome"), ("Sao Tome", "Oslo"), ("Ann", "Bonn"))
    with pytest.raises(FactsError, match="only 2 and 0"):
        choose_sets(facts, 2, 1, 0)
    rng = random.Random(0)
    assert draw_object(Fact("x", "x", "home", "{} in", "São Paulo"), ["Sao Paulo", "Rio"], rng) == "Rio"


def test_facts_whose_true_object_nobody_knows_can_be_edited(known: list[Fact]) -> None:
    new = [replace(fact, id=f"{fact.id}?", subject=f"New {fact.subject}", true_object="") for fact in known[:12]]
    edited, _ = choose_sets(known, 8, 10, 0, editable=new, redraw=False)
    assert len(edited) == 8 and {fact.true_object for fact in edited} == {""}
    own = {fact.id: fact.new_object for fact in new}
    assert all(fact.new_object == own[fact.id] for fact in edited)
