"""Users' own data as rows that know their place: a file, or a data set of the hub.

Text files come as the project reads all files of records: with lines for error messages, and every value as it was
written. ``datasets`` would make times of dates, numbers of "007", and one error without a line of any mistake, so it
reads what it alone can: data sets of the hub and folders in their shape. It comes with the trl extra. Code of a data
set's repository is never run, and nothing is uploaded.
"""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indelible.errors import ConfigError, DataError
from indelible.files import read_bytes, written_path
from indelible.records import Rejected, read_records
from indelible.tuning.settings import DataSettings

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings of files that can be read. What is inside decides between JSON lines and a JSON array."""


@dataclass(frozen=True)
class Rows:
    """All rows of a source in their order: where each stood ("row 7 (line 9)", counted from 1) -> column -> value; and
    names of the classes that a hub data set declares, by column."""

    rows: Mapping[str, Mapping[str, Any]]
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Of any row, in the order in which they are met."""
        return tuple(dict.fromkeys(column for values in self.rows.values() for column in values))


def read_rows(settings: DataSettings) -> Rows:
    """The rows of a source.

    Raises:
        DataError: it is missing, of another kind, unreadable, empty, not UTF-8, or malformed (with the line); or
            ``datasets`` is missing, the hub does not answer, or there is no such data set, config or split.
        ConfigError: a split or a config of a file.
    """
    names = {}
    if (path := _file(settings)) is None:
        loaded = _asked(settings, "load_dataset", split=settings.split or "train")
        rows = _numbered(loaded)
        names = {column: tuple(kind.names) for column, kind in loaded.features.items() if hasattr(kind, "names")}
    elif path.suffix.lower() == ".parquet":
        rows = _numbered(_parquet(path))
    elif path.suffix.lower() in FORMATS or not path.exists():
        rows = _recorded(path)
    else:
        raise DataError(f"{path} is not a kind of file that can be read here.", f"Give one of {', '.join(FORMATS)}.")
    if not rows:
        raise DataError(f"{settings.source} has no rows.", "Give one example per row, or name another split.")
    return Rows(rows, names)


def data_version(settings: DataSettings) -> str:
    """What tells one state of the data from another: the SHA-256 of a file's bytes, or a hub data set's own hash;
    errors as of ``read_rows``."""
    if (path := _file(settings)) is not None:
        return hashlib.sha256(read_bytes(path, "data file", DataError)).hexdigest()
    builder = _asked(settings, "load_dataset_builder")
    return f"{builder.dataset_name} {builder.config.name} {builder.hash} {settings.split or 'train'}"


def _file(settings: DataSettings) -> Path | None:
    """The file that is meant, or None for a data set: a source that exists, ends like a file, or is written like a
    path. A folder is read as ``datasets`` reads it, with its splits."""
    source = settings.source
    path = written_path(source, DataError)
    written = path.suffix.lower() in FORMATS or source.startswith((".", "/", "~")) or source.count("/") > 1
    if path.is_dir() or not (path.exists() or written):
        return None
    for name, value in (("split", settings.split), ("config", settings.config)):
        if value is not None:
            raise ConfigError(f"{name} is {value!r}, but {source} is a file.", "Remove it.")
    return path


def _recorded(path: Path) -> dict[str, Mapping[str, Any]]:
    rows: dict[str, Mapping[str, Any]] = {}
    for number, row in enumerate(read_records(path, "data file", DataError), start=1):
        if isinstance(row, Rejected):
            raise DataError(f"{path}, line {row.line}: {row.reason}.", "Mend or remove that row.")
        rows[f"row {number} (line {row.line})"] = row.values
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    raw = io.BytesIO(read_bytes(path, "data file", DataError))
    try:
        rows: list[dict[str, Any]] = parquet.read_table(raw).to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {_in_a_line(error)}.", "Write it anew.") from None
    return rows


def _numbered(rows: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {f"row {number}": values for number, values in enumerate(rows, start=1)}


def _asked(settings: DataSettings, function: str, **options: Any) -> Any:
    """What a function of ``datasets`` makes of the source."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise DataError(
            "Data sets of the hub are read through 'datasets', which is not installed.", "pip install 'indelible[trl]'"
        ) from None
    try:
        return getattr(datasets, function)(settings.source, name=settings.config, **options)
    except Exception as error:  # it raises a dozen kinds; which splits and configs there are is in what it says
        what, fix = (
            "data set",
            "Check its name, its config and split, and the connection to the hub, or give a local file.",
        )
        if Path(settings.source).is_dir():
            what, fix = "folder", f"Name a file in it, or give a folder of nothing but data ({', '.join(FORMATS)})."
        raise DataError(f"The {what} {settings.source!r} cannot be read: {_in_a_line(error)}.", fix) from None


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())[:250].rstrip(".")
