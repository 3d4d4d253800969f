"""``indelible facts``: what the built-in set, or a file, holds, and how much of it a model knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from indelible.errors import ConfigError, FactsError
from indelible.facts.formats import schemas
from indelible.numbers.words import counted

if TYPE_CHECKING:
    from indelible.facts.fact import Fact

SHOWN_REJECTS = 20
EXAMPLES = (
    '{"subject": "France", "prompt": "The capital of {} is", "true_object": "Paris", "new_object": "Rome"}',
    '{"subject": "Japan", "prompt": "The capital of {} is", "true_object": "Tokyo", "new_object": "Cairo",'
    ' "paraphrases": ["{} has the capital"]}',
)
FORMAT_HELP = (
    "A file of facts has one JSON object a line (.jsonl), or is a JSON array, or a CSV with a header:",
    *(f"`{example}`" for example in EXAMPLES),
    "`prompt` has `{}` for the subject, or the subject itself; the object follows it after a space. An edit needs"
    " `new_object`. Optional: `id`, `relation`, `paraphrases` (wordings to edit with), `held_out` (wordings to ask"
    ' with), `neighbours` (`{"prompt": ..., "answer": ...}`, to be left alone): lists, in a CSV with `|` between'
    " wordings, neighbours as a JSON list.",
)
"""Paragraphs for the help of commands that read facts."""

Schema = Annotated[
    str | None,
    typer.Option(
        help="How a file of facts is laid out, if its keys don't say: "
        + "; ".join(f"{name} ({', '.join(schema.keys)})" for name, schema in schemas().items())
        + "."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="FIELD=COLUMN",
        help="Where a fact's field stands in the file, e.g. true_object=answer. Repeatable.",
    ),
]


def facts(
    file: Annotated[
        Path | None, typer.Option(help="Facts of your own (JSONL, JSON or CSV) in place of the built-in ones.")
    ] = None,
    schema: Schema = None,
    columns: Columns = None,
    known_by: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Ask this model, and count what it answers.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Count facts per relation: subjects, wordings, and with --known-by how many a model answers."""
    if file is None and (schema is not None or columns):
        raise ConfigError("--schema and --column say how a file is laid out, and there is none.", "Give --file.")
    from indelible.facts.world import world_facts

    found = world_facts() if file is None else read_file(file, schema, columns)
    known = None if known_by is None else _ask(known_by, found)
    lines = _lines(found, known)
    if as_json:
        typer.echo(json.dumps(lines, indent=2, ensure_ascii=False))
        return
    from indelible.cli.display import show_table

    shown = ["relation", "facts", "wordings", *(["known"] if known is not None else []), "for example"]
    show_table(shown, [[str(line[column]) for column in shown] for line in lines])
    total = f"{counted(len(found), 'fact')} in {counted(len(lines), 'relation')}"
    typer.echo(total if known is None else f"{total}; {known_by} knows {len(known)}")


def read_file(file: Path, schema: str | None, columns: list[str] | None) -> list[Fact]:
    """The facts of a file, every row of which has to be usable.

    Args:
        file: see ``read_facts``.
        schema: as typed.
        columns: as typed, each ``FIELD=COLUMN``.

    Raises:
        ConfigError: if a column is not mapped in these words.
        FactsError: after saying on stderr which rows are not usable.
    """
    from indelible.facts.read import read_facts

    result = read_facts(file, schema=schema, columns=_mapped(columns or []) or None)
    if result.rejected:
        for row in result.rejected[:SHOWN_REJECTS]:
            typer.echo(f"{file} line {row.line}: {row.reason}", err=True)
        raise FactsError(
            f"{len(result.rejected)} of {len(result.rejected) + len(result.facts)} rows of {file} cannot be used.",
            "Mend or remove them: every row has to be a fact.",
        )
    return list(result.facts)


def _mapped(columns: list[str]) -> dict[str, str]:
    mapped: dict[str, str] = {}
    for column in columns:
        field, equals, name = column.partition("=")
        if not (field and equals and name):
            raise ConfigError(f"--column {column!r} maps nothing.", "Write FIELD=COLUMN, e.g. true_object=answer.")
        if field in mapped:
            raise ConfigError(f"--column maps {field!r} twice.", "Map every field once.")
        mapped[field] = name
    return mapped


def _ask(name: str, found: list[Fact]) -> set[str]:
    """Ids of the facts that the model answers."""
    from indelible.cli.display import counting
    from indelible.exam.exam import known_facts
    from indelible.models.load import load

    loaded = load(name)
    with counting("asking") as progress:
        return {fact.id for fact in known_facts(loaded.model, loaded.tokenizer, found, enough=None, progress=progress)}


def _lines(found: list[Fact], known: set[str] | None) -> list[dict[str, Any]]:
    related: dict[str, list[Fact]] = {}
    for fact in found:
        related.setdefault(fact.relation, []).append(fact)
    lines = []
    for relation, those in related.items():
        first = those[0]
        line: dict[str, Any] = {
            "relation": relation,
            "facts": len(those),
            "wordings": 1 + len(first.paraphrases) + len(first.held_out),
            "for example": f"{first.text()} {first.true_object}",
        }
        if known is not None:
            line["known"] = sum(fact.id in known for fact in those)
        lines.append(line)
    return lines
