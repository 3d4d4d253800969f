"""Users' own data as numbered rows: JSON lines, a JSON array, CSV, TSV or Parquet, or a data set of the hub.

This knows nothing of objectives. Every row remembers where it stood, so that a mistake in it can be found again. The
hub is read through ``datasets``, which comes with the trl extra and is imported only when a hub data set is named. Code
of a data set's repository is never run.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indelible.errors import DataError, suggest

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of files that can be read. What is inside decides between JSON lines and a JSON array."""

_EXTRA = "pip install 'indelible[trl]'"


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        place: where it stood ("line 7"), counted from 1; a CSV's or Parquet's rows are counted without the header.
        values: column -> value.
    """

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Rows:
    """All rows of a source.

    Attributes:
        rows: in their order.
        columns: of any row, in the order in which they were met.
        label_names: names of the classes that a hub data set declares, by column.
    """

    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def is_file(source: str) -> bool:
    """Whether a source is meant as a file: it exists, ends like one, or is written like a path.

    A folder is read as ``datasets`` reads it, with its splits, like a data set of the hub.
    """
    path = Path(source).expanduser()
    if path.exists():
        return not path.is_dir()
    return path.suffix.lower() in FORMATS or source.startswith((".", "/", "~")) or source.count("/") > 1


def read_file(source: str) -> Rows:
    """The rows of a file.

    Raises:
        DataError: missing, of another kind, unreadable, empty, not UTF-8, or malformed (with the line or row).
    """
    path = Path(source).expanduser()
    suffix = path.suffix.lower()
    raw = read_bytes(path)
    if suffix not in FORMATS:
        raise DataError(f"{path} is not a kind of file that can be read here.", f"Give one of {', '.join(FORMATS)}.")
    if not raw.strip():
        raise DataError(f"{path} is empty.", "Give one example per row.")
    table = _parquet(path, raw) if suffix == ".parquet" else _written(path, raw, suffix)
    columns = tuple(dict.fromkeys(column for row in table for column in row.values))
    if not table:
        raise DataError(f"{path} has no rows.", "Give one example per row.")
    return Rows(table, columns)


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        DataError: if it is missing (with near names in its folder) or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = suggest(path.name, beside) if beside else ""
        hint = near if near.startswith("Did you mean") else "Check the path."
        raise DataError(f"There is no data file {path}.", hint) from None
    except OSError as error:
        raise DataError(f"The data file {path} cannot be read: {error.strerror}.", "Check its permissions.") from None


def read_hub(source: str, config: str | None, split: str) -> Rows:
    """The rows of one split of a data set on the hub, or of a local folder of such a data set.

    Raises:
        DataError: ``datasets`` is missing, the hub does not answer, or there is no such data set, config or split.
    """
    datasets = _datasets()
    where = f"The data set {source!r}"
    try:
        loaded = datasets.load_dataset(source, name=config, split=split)
    except Exception as error:
        raise _hub_error(where, error, config, split) from None
    names = {column: tuple(kind.names) for column, kind in loaded.features.items() if hasattr(kind, "names")}
    rows = tuple(Row(f"row {number}", values) for number, values in enumerate(loaded, start=1))
    if not rows:
        raise DataError(f"{where} has no rows in its split {split!r}.", "Name another split.")
    return Rows(rows, tuple(loaded.column_names), names)


def hub_version(source: str, config: str | None, split: str) -> str:
    """What tells one state of a hub data set from another: the hash of its files' revision as ``datasets`` has it.

    Raises:
        DataError: as ``read_hub``.
    """
    datasets = _datasets()
    try:
        builder = datasets.load_dataset_builder(source, name=config)
    except Exception as error:
        raise _hub_error(f"The data set {source!r}", error, config, split) from None
    return f"{builder.dataset_name} {builder.config.name} {builder.hash} {split}"


def _datasets() -> Any:
    try:
        return importlib.import_module("datasets")
    except ImportError:
        raise DataError("Data sets of the hub are read through 'datasets', which is not installed.", _EXTRA) from None


def _hub_error(where: str, error: Exception, config: str | None, split: str) -> DataError:
    said = " ".join(str(error).split())
    listed = re.search(r"(?:one of|Available:|available configs:) \[([^]]*)\]", said)
    known = re.findall(r"'([^']+)'", listed[1]) if listed else []
    if said.startswith("Unknown split"):
        return DataError(
            f"{where} has no split {split!r}.", f"Its splits are {', '.join(known)}. {_near(split, known)}"
        )
    if "corresponds to no data" in said:
        return DataError(f"{where} has no rows in its split {split!r}.", "Name another split.")
    if known and config is not None:
        return DataError(f"{where} has no config {config!r}.", f"Known: {', '.join(known)}. {_near(config, known)}")
    if known:
        return DataError(f"{where} has several configs: {', '.join(known)}.", "Name one of them (config).")
    if isinstance(error, ConnectionError):
        return DataError(
            f"{where} cannot be read: the hub does not answer ({said}).",
            "Check the name and the connection, or give a local file.",
        )
    return DataError(f"{where} cannot be read ({said[:200].rstrip('.')}).", "Check the name and its files.")


def _near(name: str, known: list[str]) -> str:
    hint = suggest(name, known)
    return hint if hint.startswith("Did you mean") else ""


def _text(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # the decoder counts from the end of a byte order mark, where there is one
        offset = error.start + 3 * raw.startswith(b"\xef\xbb\xbf")
        line = raw.count(b"\n", 0, offset) + 1
        raise DataError(
            f"{path} is not UTF-8: byte 0x{raw[offset]:02x} at offset {offset} (line {line}).", "Save it as UTF-8."
        ) from None


def _written(path: Path, raw: bytes, suffix: str) -> tuple[Row, ...]:
    text = _text(path, raw)
    if suffix in (".csv", ".tsv"):
        return _separated(path, raw, text, "\t" if suffix == ".tsv" else ",")
    return tuple(_array(path, text) if text.lstrip().startswith("[") else _lines(path, text))


def _lines(path: Path, text: str) -> Iterator[Row]:
    # split at line feeds only: other line separators may stand inside a JSON string
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                raise _not_json(path, number, error) from None
            yield _checked(path, f"line {number}", value)


def _array(path: Path, text: str) -> Iterator[Row]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise _not_json(path, error.lineno, error) from None
    for number, value in enumerate(values, start=1):
        yield _checked(path, f"row {number}", value)


def _not_json(path: Path, line: int, error: json.JSONDecodeError) -> DataError:
    return DataError(
        f"{path}, line {line}: not JSON ({error.msg} at column {error.colno}).",
        "Mend that line; each line, or each entry of one array, is an object.",
    )


def _checked(path: Path, place: str, value: Any) -> Row:
    if isinstance(value, dict):
        return Row(place, value)
    raise DataError(
        f"{path}, {place}: a JSON {type(value).__name__}, not an object.", "Give an object of columns and values."
    )


def _separated(path: Path, raw: bytes, text: str, delimiter: str) -> tuple[Row, ...]:
    from pyarrow import ArrowInvalid, string
    from pyarrow import csv as arrow

    header = next(csv.reader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=delimiter))
    parsing = arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    # a field must not straddle two blocks
    reading = arrow.ReadOptions(use_threads=False, block_size=min(len(raw) + 1, 2**31 - 1))
    # all as text: what a value means is decided where it is used, and "007" stays what it is
    texts = arrow.ConvertOptions(column_types={name: string() for name in header}, strings_can_be_null=False)
    try:
        table = arrow.read_csv(io.BytesIO(raw), reading, parsing, texts)
    except ArrowInvalid as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path} cannot be read as {path.suffix[1:].upper()}: {said.rstrip('.')}.", "Mend that row."
        ) from None
    return _table_rows(path, table.rename_columns([name.strip() for name in table.column_names]))


def _parquet(path: Path, raw: bytes) -> tuple[Row, ...]:
    from pyarrow import ArrowException, parquet

    try:
        table = parquet.read_table(io.BytesIO(raw))
    except (ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as Parquet: {said.rstrip('.')}.", "Write it anew.") from None
    return _table_rows(path, table)


def _table_rows(path: Path, table: Any) -> tuple[Row, ...]:
    names = list(table.column_names)
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise DataError(f"{path} has two columns named {doubled!r}.", "Rename one of them.")
    return tuple(Row(f"row {number}", values) for number, values in enumerate(table.to_pylist(), start=1))
