"""One row of a user's data as the fields of an example: plain texts and conversations, checked.

An empty cell makes its row one to leave out; a value of the wrong kind is an error that names the row and the column.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from indelible.errors import DataError
from indelible.tuning.own_data.columns import parts
from indelible.tuning.own_data.files import Row
from indelible.tuning.own_data.turns import Turn, TurnsError, turns_of


class SkipError(ValueError):
    """Why a row is left out."""


@dataclass(frozen=True)
class Cells:
    """One row as fields.

    Attributes:
        source: for messages.
        row: the row.
        columns: field -> what it is mapped to.
        known: all columns of the source.
    """

    source: str
    row: Row
    columns: Mapping[str, str]
    known: tuple[str, ...]

    def has(self, field: str) -> bool:
        """Whether the field is mapped to a column."""
        return field in self.columns

    def turns(self, field: str) -> tuple[Turn, ...] | None:
        """The conversation in a field, or None if it holds a plain text."""
        names = parts(self.columns[field], self.known)
        value = self.row.values.get(names[0])
        if len(names) > 1 or isinstance(value, bool | numbers.Number):
            return None
        if value is None or value == [] or value == "":
            raise SkipError(f"without {field}")
        try:
            return turns_of(value)
        except TurnsError as error:
            raise self.wrong(field, str(error)) from None

    def text(self, field: str) -> str:
        """The plain text in a field; of several columns the first must not be empty."""
        names = parts(self.columns[field], self.known)
        texts = [self._plain(field, self.row.values.get(name)) for name in names]
        if not texts[0]:
            raise SkipError(f"without {field}")
        return "\n".join(filter(None, texts))

    def group(self) -> str:
        """What the row's group is called; empty if it stands alone."""
        try:
            return self.text("group") if self.has("group") else ""
        except SkipError:
            return ""

    def wrong(self, field: str, why: str) -> DataError:
        """An error that names the row and the column."""
        return DataError(
            f"{self.source}, {self.row.place}, column {self.columns[field]!r}: {why}.", "Mend it, or map other columns."
        )

    def _plain(self, field: str, value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        if isinstance(value, numbers.Number):
            return str(value)
        raise self.wrong(field, f"a {type(value).__name__} where a text is needed")
