"""World facts: what the package can ask about without any download.

Facts about countries, cities and chemical elements, put into this project's own words. The statements are data beside
this file: ``facts.csv`` holds one a row, the best known subjects of a relation first; ``sources.json`` names the
packages that they were taken from, with versions and licences. ``tools/world_facts`` made both.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
from collections import defaultdict
from dataclasses import replace
from importlib.resources import files

from indelible.facts.choose import draw_neighbours, draw_object
from indelible.facts.fact import Fact
from indelible.facts.world.wordings import WORDINGS


def world_facts() -> list[Fact]:
    """All built-in facts, each with a default new object and up to five neighbours.

    The defaults are drawn with a generator seeded by the fact's own identifier, so that they depend on nothing else;
    ``indelible.facts.choose.choose_sets`` redraws them for a study.
    """
    data = files("indelible.facts.world")
    sources = json.loads(data.joinpath("sources.json").read_text(encoding="utf-8"))["relations"]
    grouped: dict[str, list[Fact]] = defaultdict(list)
    for row in csv.DictReader(data.joinpath("facts.csv").read_text(encoding="utf-8").splitlines()):
        relation = row["id"].partition(":")[0]
        wordings = WORDINGS[relation]
        grouped[relation].append(
            Fact(
                id=row["id"],
                subject=row["subject"],
                relation=relation,
                prompt=wordings.prompt,
                true_object=row["object"],
                paraphrases=wordings.paraphrases,
                held_out=wordings.held_out,
                source=sources[relation],
            )
        )
    finished = []
    for relation in WORDINGS:
        facts = grouped[relation]
        objects = sorted({fact.true_object for fact in facts})
        for fact in facts:
            rng = random.Random(hashlib.sha256(fact.id.encode()).digest())
            edited = replace(fact, new_object=draw_object(fact, objects, rng))
            finished.append(replace(edited, neighbours=draw_neighbours(edited, (), facts, (), rng)))
    return finished
