"""Read facts from the files that people have.

The format (JSON lines, a JSON array, CSV) follows from the file, the schema from the keys of its first rows. Rows that
are no facts are named with their line and the reason and left out; a file without one usable row is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from indelible.errors import FactsError, UnknownNameError, suggest
from indelible.facts.fact import Fact
from indelible.facts.formats import SCHEMAS, RowError, Schema
from indelible.records import Record, Rejected, read_records

__all__ = ["ReadResult", "Rejected", "read_facts"]

ROWS_LOOKED_AT = 20


@dataclass(frozen=True)
class ReadResult:
    """What a file held, in its order: a fact for every usable row, and the others; and the name of its schema."""

    facts: tuple[Fact, ...]
    rejected: tuple[Rejected, ...]
    schema: str


def read_facts(
    path: str | Path, *, schema: str | None = None, columns: Mapping[str, str] | None = None, strict: bool = False
) -> ReadResult:
    """Read the facts of a file.

    Args:
        path: a ``.csv`` with a header, a JSON array, or (any other name) one JSON object per line; UTF-8.
        schema: name of a schema, see ``indelible.facts.formats``; recognised by its keys if None.
        columns: for rows with other names: field of ``Fact`` -> the file's own column. Fields that are not mentioned
            keep their names. Implies the schema ``indelible``.
        strict: end at the first row that is no fact instead of leaving it out.

    Raises:
        FactsError: file missing, a folder, empty, not UTF-8, a broken JSON array or CSV; schema not recognised; a
            mapped column that no row has; no usable row; with ``strict``, the first unusable row.
        UnknownNameError: for a schema or a field of ``columns`` that does not exist.
    """
    path = Path(path)
    if schema is not None and schema not in SCHEMAS:
        raise UnknownNameError("schema of facts", schema, SCHEMAS)
    rows = read_records(path, "facts file", FactsError)
    readable = [row for row in rows if isinstance(row, Record)]
    if columns is not None:
        _check_columns(path, columns, schema, readable)
        schema = "indelible"
    if readable and schema is None:
        schema = _recognise(path, readable[:ROWS_LOOKED_AT])
    facts: list[Fact] = []
    rejected: list[Rejected] = []
    lines: dict[str, int] = {}
    for row in rows:
        outcome = row if isinstance(row, Rejected) else _fact(row, SCHEMAS[schema or ""], columns or {}, path, lines)
        if isinstance(outcome, Fact):
            facts.append(outcome)
        elif strict:
            raise FactsError(f"{path}, line {outcome.line}: {outcome.reason}.", "Mend or remove that row.")
        else:
            rejected.append(outcome)
    if not facts:
        first = "; ".join(f"line {row.line}: {row.reason}" for row in rejected[:3])
        raise FactsError(f"{path} holds no usable fact ({len(rejected)} rows rejected: {first}).", "Mend these rows.")
    return ReadResult(tuple(facts), tuple(rejected), schema or "")


def _fact(
    row: Record, schema: Schema, columns: Mapping[str, str], path: Path, lines: dict[str, int]
) -> Fact | Rejected:
    values = row.values | {field: row.values.get(column) for field, column in columns.items()}
    try:
        fact = schema.fact(values, f"{path.stem}:{row.line}", f"{path.name}:{row.line}")
    except RowError as error:
        return Rejected(row.line, str(error))
    if fact.new_object is not None and fact.new_object.casefold() == fact.true_object.casefold():
        return Rejected(row.line, f"the new object is the true one, {fact.true_object!r}")
    if fact.id in lines:
        return Rejected(row.line, f"the id {fact.id!r} was used before, on line {lines[fact.id]}")
    lines[fact.id] = row.line
    return fact


def _recognise(path: Path, rows: Sequence[Record]) -> str:
    for row in rows:
        rewrite = row.values.get("requested_rewrite")
        keys = {*row.values, *(rewrite if isinstance(rewrite, dict) else ())}
        for name, schema in SCHEMAS.items():
            if keys.issuperset(schema.keys):
                return name
    # the schema whose keys are nearest to complete is most likely meant
    present = set(rows[0].values)
    name = max(SCHEMAS, key=lambda name: len(present.intersection(SCHEMAS[name].keys)) / len(SCHEMAS[name].keys))
    missing = [key for key in SCHEMAS[name].keys if key not in present]
    raise FactsError(
        f"{path}, line {rows[0].line}: the keys {', '.join(sorted(present)) or '(none)'} fit no known schema "
        f"(nearest is {name!r}, which also needs {', '.join(missing)}).",
        f"Name the schema ({', '.join(SCHEMAS)}), or map columns to subject, prompt and true_object"
        " (--column FIELD=COLUMN; in a study facts.columns).",
    )


def _check_columns(path: Path, columns: Mapping[str, str], schema: str | None, rows: Sequence[Record]) -> None:
    if schema not in (None, "indelible"):
        raise FactsError(f"Columns are mapped, but the schema is {schema!r}.", "Map columns without naming a schema.")
    names = [field.name for field in fields(Fact)]
    for field in columns:
        if field not in names:
            raise UnknownNameError("field of a fact", field, names)
    present = {key for row in rows for key in row.values}
    for field, column in columns.items():
        if rows and column not in present:
            raise FactsError(f"{path} has no column {column!r} (mapped to {field}).", suggest(column, present))
