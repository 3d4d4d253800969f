"""``indelible facts``: what the built-in set, or a file, holds, and how much of it a model knows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.errors import FactsError

if TYPE_CHECKING:
    from indelible.facts.fact import Fact

SHOWN_REJECTS = 20


def facts(
    file: Annotated[
        Path | None, typer.Option(help="Facts of your own (JSONL, JSON or CSV) in place of the built-in ones.")
    ] = None,
    schema: Annotated[str | None, typer.Option(help="How the file is laid out, if its keys don't say.")] = None,
    known_by: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Ask this model, and count what it answers.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Count facts per relation: subjects, wordings, and with --known-by how many a model answers."""
    from indelible.facts.world import world_facts

    found = world_facts() if file is None else read_file(file, schema)
    known = None if known_by is None else _ask(known_by, found)
    lines = _lines(found, known)
    if as_json:
        typer.echo(json.dumps(lines, indent=2, ensure_ascii=False))
        return
    from indelible.cli.display import show_table

    columns = ["relation", "facts", "wordings", *(["known"] if known is not None else []), "for example"]
    show_table(columns, [[str(line[column]) for column in columns] for line in lines])
    total = f"{len(found)} facts in {len(lines)} relations"
    typer.echo(total if known is None else f"{total}; {known_by} knows {len(known)}")


def read_file(file: Path, schema: str | None) -> list[Fact]:
    """The facts of a file, every row of which has to be usable.

    Raises:
        FactsError: after saying on stderr which rows are not.
    """
    from indelible.facts.readers import read_facts

    result = read_facts(file, schema=schema)
    if result.rejected:
        for row in result.rejected[:SHOWN_REJECTS]:
            typer.echo(f"{file} line {row.line}: {row.reason}", err=True)
        raise FactsError(
            f"{len(result.rejected)} of {len(result.rejected) + len(result.facts)} rows of {file} cannot be used.",
            "Mend or remove them; a study takes every row of its facts.",
        )
    return list(result.facts)


def _ask(name: str, found: list[Fact]) -> set[str]:
    """Ids of the facts that the model answers."""
    from indelible.cli.display import counting
    from indelible.models.load import load
    from indelible.probing.exam import known_facts

    loaded = load(name)
    with counting("asking") as progress:
        return {fact.id for fact in known_facts(loaded.model, loaded.tokenizer, found, enough=None, progress=progress)}


def _lines(found: list[Fact], known: set[str] | None) -> list[dict[str, Any]]:
    counts = Counter(fact.relation for fact in found)
    lines = []
    for relation, count in counts.items():
        first = next(fact for fact in found if fact.relation == relation)
        line: dict[str, Any] = {
            "relation": relation,
            "facts": count,
            "wordings": 1 + len(first.paraphrases) + len(first.held_out),
            "for example": f"{first.text()} {first.true_object}",
        }
        if known is not None:
            line["known"] = sum(fact.id in known for fact in found if fact.relation == relation)
        lines.append(line)
    return lines
