"""Files of facts as numbered rows, whatever their format: JSON lines, one JSON array, or CSV.

This knows nothing of facts. It turns a file into rows that remember their line, and keeps the lines that cannot be
read apart, each with its reason, so that one broken line does not cost the others.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.errors import FactsError


@dataclass(frozen=True)
class Rejected:
    """A row that could not be used.

    Attributes:
        line: number of the line on which the row starts, counted from 1.
        reason: why, in one line.
    """

    line: int
    reason: str


@dataclass(frozen=True)
class Row:
    """A row that could be read.

    Attributes:
        line: number of the line on which it starts, counted from 1.
        values: column or key -> value.
    """

    line: int
    values: dict[str, Any]


def read_rows(path: Path) -> Iterator[Row | Rejected]:
    """The rows of a file in order: ``.csv`` by its header, else a JSON array or one JSON object a line.

    Raises:
        FactsError: if the file is missing, a folder, unreadable, empty, not UTF-8, a broken JSON array or a broken CSV.
    """
    text = _read_text(path)
    if path.suffix.lower() == ".csv":
        return _csv_rows(path, text)
    if text.lstrip().startswith("["):
        return _array_rows(path, text)
    return _json_lines(text)


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise FactsError(f"{path} is a folder, not a file of facts.", "Name the file in it.")
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise FactsError(f"There is no facts file {path}.", "Check the path.") from None
    except OSError as error:
        raise FactsError(f"The facts file {path} cannot be read: {error.strerror}.", "Check its permissions.") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # the decoder counts from the end of a byte order mark, where there is one
        offset = error.start + 3 * raw.startswith(b"\xef\xbb\xbf")
        line = raw.count(b"\n", 0, offset) + 1
        raise FactsError(
            f"{path} is not UTF-8: byte 0x{raw[offset]:02x} at offset {offset} (line {line}).",
            "Save the file as UTF-8.",
        ) from None
    if not text.strip():
        raise FactsError(f"The facts file {path} is empty.", "Give one fact per line.")
    return text


def _json_lines(text: str) -> Iterator[Row | Rejected]:
    # split at line feeds only: other line separators may stand inside a JSON string
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield _checked(number, json.loads(line))
        except (ValueError, RecursionError) as error:
            yield Rejected(number, _not_json(error))


def _array_rows(path: Path, text: str) -> Iterator[Row | Rejected]:
    decoder = json.JSONDecoder()
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise FactsError(
            f"{path}, line {error.lineno}: {_not_json(error)}.",
            "Mend that line, or write one JSON object per line, so that one mistake does not cost the others.",
        ) from None
    except (ValueError, RecursionError) as error:
        raise FactsError(f"{path}: {_not_json(error)}.", "Write one JSON object per line, each a fact.") from None
    position = text.index("[") + 1
    line, counted = 1, 0
    while True:
        while text[position] in " \t\r\n,":
            position += 1
        if text[position] == "]":
            return
        line, counted = line + text.count("\n", counted, position), position
        value, position = decoder.raw_decode(text, position)
        yield _checked(line, value)


def _csv_rows(path: Path, text: str) -> Iterator[Row | Rejected]:
    # strict: a quote that is never closed would make one long field of all rows that follow
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    start = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise FactsError(
                f"{path}, line {start}: not CSV ({error}).", "Mend the row that begins there; look at its quotes first."
            ) from None
        line, start = start, reader.line_num + 1
        if not any(field.strip() for field in fields):
            continue
        if header is None:
            header = _header(path, line, fields)
        elif len(fields) != len(header):
            yield Rejected(line, f"has {len(fields)} fields where the header has {len(header)}")
        else:
            yield Row(line, dict(zip(header, fields, strict=True)))


def _header(path: Path, line: int, fields: list[str]) -> list[str]:
    """The names of a CSV's columns."""
    header = [name.strip() for name in fields]
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise FactsError(
            f"{path}, line {line}: the header is one column, {header[0]!r}.", "Put commas between columns."
        )
    twice = [name for name, times in Counter(header).items() if name and times > 1]
    if twice:
        raise FactsError(f"{path}, line {line}: two columns are named {twice[0]!r}.", "Give each a name of its own.")
    return header


def _not_json(error: ValueError | RecursionError) -> str:
    """Why a text could not be read: its syntax, or numbers too long and lists too deep to be taken."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON ({error.msg} at column {error.colno})"
    return f"not JSON that can be read ({error})"


def _checked(line: int, value: Any) -> Row | Rejected:
    if isinstance(value, dict):
        return Row(line, value)
    return Rejected(line, f"is a JSON {type(value).__name__}, not an object")
