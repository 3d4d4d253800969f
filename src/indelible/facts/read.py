"""Read facts from the files that people have.

The format (JSON lines, a JSON array, CSV) follows from the file, the schema from the keys of its first rows. Rows that
are no facts are named with their line and the reason and left out; a file without one usable row is an error. What is
in the rows of a benchmark and no exam asks is named as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, overload

from indelible.errors import FactsError, UnknownNameError, suggest
from indelible.facts.benchmarks import NO_FACTS, SCHEMAS
from indelible.facts.fact import Fact, taken_for
from indelible.facts.formats import Row, RowError, Schema
from indelible.records import Record, Rejected, read_records
from indelible.showing import cut

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ReadResult", "Rejected", "read_facts"]

ROWS_LOOKED_AT = 20
LISTED = 3


@dataclass(frozen=True)
class ReadResult(Sequence[Fact]):
    """What a file held, in its order: a sequence of its facts, with what was left out.

    Attributes:
        facts: of every usable row.
        rejected: rows that are wrong: lines that cannot be read, and rows of one's own that are no facts.
        skipped: rows of a benchmark, as it was published, that are no facts or say the same as an earlier one.
        schema: name of the schema that was given or recognised.
        unused: what is in the rows and was not used -> how many rows have it.
    """

    facts: tuple[Fact, ...]
    rejected: tuple[Rejected, ...]
    schema: str
    skipped: tuple[Rejected, ...]
    unused: Mapping[str, int]

    @overload
    def __getitem__(self, place: int) -> Fact: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Fact, ...]: ...

    def __getitem__(self, place: int | slice) -> Fact | tuple[Fact, ...]:
        return self.facts[place]

    def __len__(self) -> int:
        return len(self.facts)

    def __repr__(self) -> str:
        left = len(self.rejected) + len(self.skipped)
        first = f", the first {self.facts[0]!r}" if self.facts else ""
        return f"ReadResult({len(self)} facts ({self.schema}), {left} rows left out{first})"

    def to_frame(self) -> pd.DataFrame:
        """One row per fact, a column per field of ``Fact``."""
        import pandas as pd

        return pd.DataFrame(asdict(fact) for fact in self.facts)

    def in_words(self, listed: int = LISTED) -> list[str]:
        """What was left out: rows that were skipped, the first so many one by one, and what others hold unused."""
        notes = []
        if self.skipped:
            first = "; ".join(f"line {row.line}: {row.reason}" for row in self.skipped[:listed])
            more = f"; and {len(self.skipped) - listed} more" if len(self.skipped) > listed else ""
            notes.append(f"{len(self.skipped)} rows skipped, beside {len(self.facts)} facts: {first}{more}.")
        if self.unused:
            published = SCHEMAS[self.schema].published
            known = "" if published else f" A fact has {', '.join(field.name for field in fields(Fact))}."
            notes.append(f"Not used: {', '.join(f'{name} ({n} rows)' for name, n in self.unused.items())}.{known}")
        return notes


def read_facts(
    path: str | Path, *, schema: str | None = None, columns: Mapping[str, str] | None = None, strict: bool = False
) -> ReadResult:
    """Read the facts of a file.

    Args:
        path: a ``.csv`` with a header, a JSON array, or (any other name) one JSON object per line; UTF-8.
        schema: name of a schema, see ``indelible.facts.benchmarks``; recognised by its keys if None.
        columns: for rows with other names: field of ``Fact`` -> the file's own column. Fields that are not mentioned
            keep their names. Implies the schema ``indelible``.
        strict: end at the first row that is wrong instead of leaving it out; rows of a benchmark are only skipped.

    Raises:
        FactsError: file missing, a folder, empty, not UTF-8, a broken JSON array or CSV; schema not recognised; a
            mapped column that no row has; no usable row; with ``strict``, the first unusable row.
        UnknownNameError: for a schema or a field of ``columns`` that does not exist.
    """
    path = Path(path)
    if schema is not None and schema not in SCHEMAS:
        raise UnknownNameError("schema of facts", schema, SCHEMAS)
    rows = read_records(path, "facts file", FactsError)
    if columns is not None:
        _check_columns(path, columns, schema, [row for row in rows if isinstance(row, Record)])
        schema = "indelible"
    looked_at = list(islice((row for row in rows if isinstance(row, Record)), ROWS_LOOKED_AT))
    if looked_at and schema is None:
        schema = _recognise(path, looked_at)
    reader = _Reader(path, SCHEMAS[schema or "indelible"], columns or {})
    rows.reverse()
    while rows:
        row = rows.pop()  # rows go as facts come: there may be very many
        if isinstance(row, Rejected):
            reader.rejected.append(row)
        else:
            reader.read(row)
        if strict and reader.rejected:
            wrong = reader.rejected[0]
            raise FactsError(f"{path}, line {wrong.line}: {wrong.reason}.", "Mend or remove that row.")
    if not reader.facts:
        left_out = sorted((*reader.rejected, *reader.skipped), key=lambda row: row.line)
        first = "; ".join(f"line {row.line}: {row.reason}" for row in left_out[:LISTED])
        raise FactsError(f"{path} holds no usable fact ({len(left_out)} rows rejected: {first}).", "Mend these rows.")
    return ReadResult(
        tuple(reader.facts), tuple(reader.rejected), schema or "", tuple(reader.skipped), dict(reader.unused)
    )


class _Reader:
    """Tells the rows of one file apart."""

    def __init__(self, path: Path, schema: Schema, columns: Mapping[str, str]) -> None:
        self.path, self.schema, self.columns = path, schema, columns
        self.facts: list[Fact] = []
        self.rejected: list[Rejected] = []
        self.skipped: list[Rejected] = []
        self.unused = Counter[str]()
        self._lines: dict[object, int] = {}

    def read(self, row: Record) -> None:
        """Take a row's facts, or note why it has none."""
        own = {key: value for key, value in row.values.items() if key not in self.columns.values()}
        values = Row(own | {field: row.values.get(column) for field, column in self.columns.items()})
        try:
            found = self.schema.facts(values, f"{self.path.stem}:{row.line}", f"{self.path.name}:{row.line}")
        except RowError as error:
            self._leave(row.line, str(error))
            return
        for fact in [found] if isinstance(found, Fact) else found:
            same = (fact.subject, fact.prompt, fact.new_object)
            if fact.new_object is not None and fact.new_object.casefold() == fact.true_object.casefold():
                self._leave(row.line, f"the new object is the true one, {fact.true_object!r}")
            elif fact.new_object is not None and taken_for(fact.true_object, fact.new_object):
                reason = f"the true object, {fact.true_object!r}, would be taken for the new one, {fact.new_object!r}"
                self._leave(row.line, reason)
            elif any("\n" in text for text in (fact.true_object, fact.new_object or "")):
                self._leave(row.line, "an object has several lines; a model's answer is judged to the end of its line")
            elif fact.id in self._lines:
                self._leave(row.line, f"the id {fact.id!r} was used before, on line {self._lines[fact.id]}")
            elif self.schema.published and same in self._lines:
                self._leave(row.line, f"the same edit stands on line {self._lines[same]}")
            else:
                self._lines[fact.id] = row.line
                if self.schema.published:
                    self._lines[same] = row.line
                self.facts.append(fact)
        passed_over = self.schema.passed_over
        self.unused.update(name for name in values.unread() if name.rpartition(".")[2] not in passed_over)

    def _leave(self, line: int, reason: str) -> None:
        (self.skipped if self.schema.published else self.rejected).append(Rejected(line, cut(reason)))


def _recognise(path: Path, rows: Sequence[Record]) -> str:
    for row in rows:
        rewrite = row.values.get("requested_rewrite")
        rewrite = rewrite[0] if isinstance(rewrite, list) and rewrite else rewrite
        keys = {*row.values, *(rewrite if isinstance(rewrite, dict) else ())}
        if "new_object" in keys:  # what is only edited needs no true one
            keys.add("true_object")
        for name, schema in SCHEMAS.items():
            if keys.issuperset(schema.keys):
                return name
        for name, (wanted, why) in NO_FACTS.items():
            if keys.issuperset(wanted):
                raise FactsError(
                    f"{path} is {name} (keys {', '.join(wanted)}), which cannot be read: {why}.",
                    "Write rows with subject, prompt, true_object and new_object in its place.",
                )
    # the schema whose keys are nearest to complete is most likely meant; where none has a key here, our own (the last)
    present = set(rows[0].values)
    name, schema = max(
        reversed([*SCHEMAS.items()]), key=lambda item: len(present.intersection(item[1].keys)) / len(item[1].keys)
    )
    missing = [key for key in schema.keys if key not in present]
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
