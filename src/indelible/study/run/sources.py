"""What a study reads from outside, beside the model: candidate facts, texts for covariances; and their versions.

The versions go into the keys of steps, so that a changed file never passes for the one that a result was made from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.manifest import SUFFIX
from indelible.errors import FactsError, suggest
from indelible.facts.fact import Fact, entry_of
from indelible.facts.read import read_facts
from indelible.facts.world import world_facts
from indelible.models.bundled import texts as bundled
from indelible.models.corpus import ENCYCLOPEDIA, corpus_texts
from indelible.numbers.words import counted
from indelible.showing import listing
from indelible.study.design.settings import WORLD, FactsSettings

NAMED = 10
"""Relations, at most, in a note."""


def candidate_facts(settings: FactsSettings, note: Callable[[str], None] = lambda text: None) -> list[Fact]:
    """All facts that a study may choose from; ``note`` is told what a file holds and is left out, and which edits have
    no like among intrinsic facts.

    Where a file names the edited ones, they and no others have a new object.

    Raises:
        FactsError: as ``read_facts``, or a relation is not among the facts; the file of edits names none, or none
            of the relations.
        EditError: for a delta that cannot be read.
    """
    file = settings.file
    columns, schema = settings.columns, settings.schema_name
    facts = _read(file or settings.source, settings.strict, note, columns, schema)
    if file is not None:
        edited = [fact for fact in facts if fact.new_object is not None]
        others = [fact for fact in facts if fact.new_object is None]
        if not edited:
            raise FactsError(f"No fact of {file} has a new object.", "Give new_object for each fact to be edited.")
        if settings.intrinsic is not None or not others:
            others = _read(settings.intrinsic or WORLD, settings.strict, note)
        taken = {fact.id for fact in edited}
        free = [fact for fact in others if fact.id not in taken]
        if settings.intrinsic not in (None, WORLD) and len(free) < len(others):
            same = counted(len(others) - len(free), "fact")
            of = Path(settings.intrinsic).name
            note(f"{same} of {of} left out: edited facts have the same `id`. Give each its own.")
        facts = edited + [replace(fact, new_object=None) for fact in free]
        _note_relations(edited, others, note)
    if settings.relations is None:
        return facts
    known = {fact.relation for fact in facts}
    for relation in settings.relations:
        if relation not in known:
            raise FactsError(f"No fact has the relation {relation!r} in 'facts.relations'.", suggest(relation, known))
    wanted = set(settings.relations)
    kept = [fact for fact in facts if fact.relation in wanted]
    if file is not None and all(fact.new_object is None for fact in kept):
        there = listing(sorted({repr(fact.relation) for fact in facts if fact.new_object is not None}), NAMED)
        raise FactsError(
            f"No fact of {file} with a new object is of 'facts.relations'; they are of {there}.",
            "Name relations of theirs, or leave the key out.",
        )
    return kept


def _note_relations(edited: Sequence[Fact], others: Sequence[Fact], note: Callable[[str], None]) -> None:
    """Say it where edits are of relations of which there is no intrinsic fact: at equal start nothing is said of
    them."""
    there = {fact.relation for fact in others}
    alone = [fact for fact in edited if fact.relation not in there]
    if alone:
        names, known = (listing([*map(repr, sorted(each))], NAMED) for each in ({one.relation for one in alone}, there))
        note(
            f"{len(alone)} of {len(edited)} edits are left out of what is compared at equal start: no intrinsic fact is"
            f" of their relation ({names}). Name it, as `relation` of each fact, as the intrinsic facts do ({known}),"
            " or give intrinsic facts of it."
        )


def _read(
    source: str,
    strict: bool,
    note: Callable[[str], None],
    columns: Mapping[str, str] | None = None,
    schema: str | None = None,
) -> list[Fact]:
    """The facts of a source, in its order."""
    if source == WORLD:
        return world_facts()
    if source.endswith(SUFFIX):
        return list(Edit.load(source).facts)
    found = read_facts(source, columns=columns, schema=schema, strict=strict)
    for words in found.in_words():
        note(f"{Path(source).name}: {words}")
    return list(found.facts)


def facts_version(facts: Sequence[Fact]) -> str:
    """Digest of facts, in their order: that of the list of their entries, of which there is one at a time."""
    found = hashlib.sha256()
    for place, fact in enumerate(facts):
        found.update((b"," if place else b"[") + _canonical(entry_of(fact)))
    found.update(b"]" if facts else b"[]")
    return found.hexdigest()


def corpus_version(source: str) -> str:
    """Digest of the texts; for the bundled ones the digest of the archive they come from, which fetches nothing."""
    return bundled.PROSE.sha256 if source == ENCYCLOPEDIA else digest(corpus_texts(source))


def tasks_version() -> str:
    """Versions of what the built-in tasks make their examples from."""
    archives = (bundled.PROSE, bundled.REVIEWS, bundled.ARTICLES, bundled.MANUAL)
    made = ", ".join(f"{archive.package} {archive.sha256}" for archive in archives)
    return f"reasoning-gym {version('reasoning-gym')}, {made}, cleaning {bundled.CLEANING}"


def digest(content: Any) -> str:
    """64 hex digits that are equal exactly for equal JSON content, whatever the order of keys."""
    return hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode(
        "ascii"
    )
