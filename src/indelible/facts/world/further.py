"""What the built-in facts say beside their own wordings: reversed, and one hop further.

A fact is taken for one of a built-in relation where it bears its name and its prompt, wherever it was read from, since
then it means the same. The wordings stand in ``further.toml``, not in the facts, which are edited and kept without.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any

from indelible.facts.fact import Fact
from indelible.facts.world import packaged, world_wordings


def world_reversal(fact: Fact) -> str:
    """The template from object to subject of a fact of a built-in relation; empty where the inverse is not unique."""
    return str(_further()["reversals"].get(_relation(fact), ""))


def world_hops(fact: Fact) -> Mapping[str, str]:
    """Relations that say something of the fact's object -> the template that asks it of the subject."""
    hops: Mapping[str, str] = _further()["hops"].get(_relation(fact), {})
    return hops


def world_object(relation: str, subject: str) -> str | None:
    """What a built-in relation says of a subject, spelled as in the facts; None where it says nothing."""
    return _objects()[relation].get(subject)


def subjects_of(fact: Fact, said: str) -> list[str]:
    """Subjects of which the fact's relation, if it is built in, says that object."""
    return [subject for subject, found in _objects().get(_relation(fact), {}).items() if found == said]


def _relation(fact: Fact) -> str:
    """The built-in relation that a fact is of, or empty."""
    wordings = _further()["prompts"].get(fact.relation)
    return fact.relation if wordings == fact.prompt else ""


@cache
def _further() -> dict[str, Any]:
    prompts = {relation: texts["prompt"] for relation, texts in world_wordings().items()}
    return {**tomllib.loads(packaged("further.toml")), "prompts": prompts}


@cache
def _objects() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in csv.DictReader(packaged("facts.csv").splitlines()):
        found.setdefault(row["id"].partition(":")[0], {})[row["subject"]] = row["object"]
    return found
