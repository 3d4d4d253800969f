"""Files of records as numbered rows, whatever their format: JSON lines, one JSON array, CSV or TSV.

Every record remembers its line, and lines that cannot be read are kept apart, each with its reason, so that whoever
reads may do without them. Values stay as they were written: a CSV's are all text ("007"), a date in JSON is text.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.documents import from_json
from indelible.errors import IndelibleError
from indelible.files import read_text


@dataclass(frozen=True)
class Rejected:
    """A row that could not be used: the line on which it starts, counted from 1, and why."""

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """A row that could be read: the line on which it starts, counted from 1, and column or key -> value."""

    line: int
    values: dict[str, Any]


def read_records(path: Path, what: str, error: type[IndelibleError]) -> list[Record | Rejected]:
    """The rows of a file in order: ``.csv`` and ``.tsv`` by their header, else a JSON array or one JSON object a line.

    Raises:
        error: if it is missing, a folder, unreadable, not UTF-8, empty, without rows, a broken JSON array, or a CSV
            with a broken quote or header.
    """
    text = read_text(path, what, error)
    if not text.strip():
        raise error(f"The {what} {path} is empty.", "Give one row per line.")
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            rows = list(_separated(text, "," if suffix == ".csv" else "\t"))
        elif text.lstrip().startswith("["):
            rows = list(_array(text))
        else:
            rows = list(_lines(text))
    except _BrokenError as broken:
        raise error(f"{path}{broken.place}: {broken.what}.", broken.fix) from None
    if not rows:
        raise error(f"{path} has no rows.", "Give one row per line.")
    return rows


class _BrokenError(ValueError):
    """What is wrong with a whole file: where (", line 3"), what, and what to do."""

    def __init__(self, place: str, what: str, fix: str) -> None:
        self.place, self.what, self.fix = place, what, fix


def _lines(text: str) -> Iterator[Record | Rejected]:
    # split at line feeds only: other line separators may stand inside a JSON string
    number, end = 0, -1
    while end < len(text):  # and one at a time, of what may be hundreds of megabytes
        begin, end = end + 1, text.find("\n", end + 1)
        end = end if end >= 0 else len(text)
        number, line = number + 1, text[begin:end]
        if line.strip():
            try:
                yield _object(number, from_json(line))
            except ValueError as error:
                yield Rejected(number, str(error))


def _array(text: str) -> Iterator[Record | Rejected]:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise _BrokenError(
            f", line {error.lineno}",
            f"not JSON ({error.msg} at column {error.colno})",
            "Mend that line, or write one JSON object per line, so that one mistake does not cost the others.",
        ) from None
    except (ValueError, RecursionError) as error:
        raise _BrokenError("", f"not JSON that can be read ({error})", "Write one JSON object per line.") from None
    decoder = json.JSONDecoder()
    position = text.index("[") + 1
    line, counted = 1, 0
    while True:
        while text[position] in " \t\r\n,":
            position += 1
        if text[position] == "]":
            return
        line, counted = line + text.count("\n", counted, position), position
        _, position = decoder.raw_decode(text, position)
        try:
            yield _object(line, from_json(text[counted:position]))
        except ValueError as error:
            yield Rejected(line, str(error))


def _object(line: int, value: Any) -> Record | Rejected:
    if isinstance(value, dict):
        return Record(line, {sys.intern(key): one for key, one in value.items()})  # each key is held once
    return Rejected(line, f"is a JSON {type(value).__name__}, not an object")


def _separated(text: str, delimiter: str) -> Iterator[Record | Rejected]:
    # a field may be a whole document; the limit, which is the process's own, is only ever raised
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    # strict: a quote that is never closed would make one long field of all rows that follow
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    try:
        for fields in reader:
            if not header and any(map(str.strip, fields)):
                header = _header(line, fields)
            elif any(map(str.strip, fields)):
                if len(fields) == len(header):
                    yield Record(line, dict(zip(header, fields, strict=True)))
                else:
                    yield Rejected(line, f"has {len(fields)} fields where the header has {len(header)}")
            line = reader.line_num + 1
    except csv.Error as error:
        fix = "Mend the row that begins there; look at its quotes first."
        raise _BrokenError(f", line {line}", f"not CSV ({error})", fix) from None


def _header(line: int, fields: list[str]) -> list[str]:
    """The names of a table's columns."""
    header = [name.strip() for name in fields]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise _BrokenError(f", line {line}", f"the header is one column, {header[0]!r}", "Put commas between columns.")
    if twice := [name for name, times in Counter(header).items() if name and times > 1]:
        raise _BrokenError(f", line {line}", f"two columns are named {twice[0]!r}", "Give each a name of its own.")
    return header
