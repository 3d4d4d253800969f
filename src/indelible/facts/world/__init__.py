"""World facts: what the package can ask about without any download.

Facts about countries, cities and chemical elements, put into this project's own words. All of it is data beside this
file: ``facts.csv`` holds a statement a row, the best known subjects of a relation first; ``wordings.toml`` says how
each relation is put into words; ``sources.json`` names the packages that the statements were taken from, with versions
and licences. ``tools/world_facts`` made the first and the last.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import tomllib
from dataclasses import replace
from importlib.resources import files
from typing import Any

from indelible.facts.choose import draw_object
from indelible.facts.fact import Fact
from indelible.facts.neighbours import draw_neighbours


def world_wordings() -> dict[str, dict[str, Any]]:
    """Relation -> the fields of its facts that are wordings, in the file's order."""
    wordings = tomllib.loads(packaged("wordings.toml"))
    for texts in wordings.values():
        texts |= {name: tuple(texts[name]) for name in ("paraphrases", "held_out")}
    return wordings


def world_facts() -> list[Fact]:
    """All built-in facts, each with a default new object and up to five neighbours.

    The defaults are drawn with a generator seeded by the fact's own identifier, so that they depend on nothing else;
    ``indelible.facts.choose.choose_sets`` redraws them for a study.
    """
    sources = json.loads(packaged("sources.json"))["relations"]
    wordings = world_wordings()
    grouped: dict[str, list[Fact]] = {relation: [] for relation in wordings}
    for row in csv.DictReader(packaged("facts.csv").splitlines()):
        relation = row["id"].partition(":")[0]
        fact = Fact(
            row["id"],
            row["subject"],
            relation,
            true_object=row["object"],
            source=sources[relation],
            **wordings[relation],
        )
        grouped[relation].append(fact)
    finished = []
    for facts in grouped.values():
        objects = sorted({fact.true_object for fact in facts})
        for fact in facts:
            rng = random.Random(hashlib.sha256(fact.id.encode()).digest())
            edited = replace(fact, new_object=draw_object(fact, objects, rng))
            finished.append(replace(edited, neighbours=draw_neighbours(edited, (), facts, (), rng)))
    return finished


def packaged(name: str) -> str:
    """A data file of this folder."""
    return files("indelible.facts.world").joinpath(name).read_text(encoding="utf-8")
