"""Which columns of a user's data hold what an objective needs: as mapped by the user, or well-known names.

A mapping goes from a field to a column, or to several with ``+`` between them, whose texts then follow one another on
lines of their own (``instruction+input``). What is guessed has the same form, to be said, copied and changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

from indelible.errors import DataError, near_names
from indelible.tuning.settings import FIELDS

Needs = Sequence[tuple[str, ...]]
"""Sets of fields that are each enough for an objective, best first (see ``Objective.needs``)."""

_TEXTS = ("text", "content", "document", "sentence", "review", "article", "body")
_LABELS = ("label", "labels", "sentiment", "category", "class")
_CONVERSATIONS = ("messages", "conversations", "conversation")
_QUESTIONS = ("prompt", "question", "instruction+input", "instruction", "query")
_ANSWERED = (
    "prompt:completion prompt:response prompt:answer question:answer instruction+input:output instruction:output "
    "instruction+context:response instruction:response problem:solution question:response query:response query:answer "
    "input:output"
)

WELL_KNOWN: Mapping[tuple[str, ...], Sequence[Sequence[str]]] = {
    ("text",): [(name,) for name in _TEXTS + _CONVERSATIONS],
    ("prompt", "answer"): [pair.split(":") for pair in _ANSWERED.split()],
    ("prompt",): [(name,) for name in _CONVERSATIONS],
    ("text", "label"): [(text, label) for label, text in product(_LABELS, (*_TEXTS, "prompt"))],
    ("prompt", "chosen", "rejected"): [(name, "chosen", "rejected") for name in _QUESTIONS + _CONVERSATIONS],
}
"""Fields -> names of columns to try where the user gives none; the first that are all there are taken."""


def guess_columns(source: str, needs: Needs, columns: Sequence[str]) -> dict[str, str]:
    """A mapping by well-known names, or by columns that have the very names of the fields; DataError if none fits."""
    for fields in needs:
        for names in WELL_KNOWN.get(fields, [fields]):
            if all(set(name.split("+")) <= set(columns) for name in names):
                return dict(zip(fields, names, strict=True))
    raise DataError(
        f"{source} has no columns with well-known names for {' and '.join(needs[0])}; it has {', '.join(columns)}.",
        f"Map its columns to {' and '.join(needs[0])}.",
    )


def check_columns(source: str, needs: Needs, mapped: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
    """The user's mapping, completed by columns that have the very name of a field that is needed; DataError for a
    column that is not there, or a needed field without a column."""
    for field, spec in mapped.items():
        for column in parts(spec, columns):
            if column not in columns:
                raise DataError(f"{source} has no column {column!r} (mapped to {field}).", _hint(column, columns))
    whole = {field: field for field in FIELDS if field in columns} | dict(mapped)
    for fields in needs:
        if set(fields) <= set(whole):
            return {field: whole[field] for field in (*fields, *({"group"} & set(mapped)))}
    missing = next(field for field in needs[0] if field not in whole)
    raise DataError(
        f"No column of {source} is mapped to {missing!r}, which the objective needs.",
        f"Map one. {_hint(missing, columns)}",
    )


def parts(spec: str, columns: Sequence[str]) -> list[str]:
    """The columns that a mapping's right side names. A column whose own name has a ``+`` is one column."""
    return [spec] if spec in columns else [part.strip() for part in spec.split("+")]


def _hint(name: str, columns: Sequence[str]) -> str:
    near = near_names(name, columns)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"Its columns are {', '.join(columns)}.{hint}"
