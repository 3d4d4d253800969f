"""Tables as CSV, which plain numbers fill and no spreadsheet runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indelible.showing import no_formula

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def csv(frame: pd.DataFrame, *, number: str | None = None) -> str:
    """The table with its header; ``number``: a format for fractions, which otherwise stand there in full."""
    return _escaped(frame).to_csv(index=False, lineterminator="\n", float_format=number)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write the same, with fractions in full, piece by piece: as one text a large table is many times its file."""
    _escaped(frame).to_csv(path, index=False, lineterminator="\n", encoding="utf-8")


def _escaped(frame: pd.DataFrame) -> pd.DataFrame:
    escaped = frame.rename(columns=no_formula)
    for name in escaped.select_dtypes(exclude=["number", "bool"]):
        escaped[name] = escaped[name].astype(object).map(no_formula)
    return escaped
