"""Which columns of a user's data hold what an objective needs: as mapped by the user, or well-known names.

A mapping goes from a field (prompt, answer, text, label, chosen, rejected, group) to a column, or to several with ``+``
between them, whose texts then follow one another on lines of their own (``instruction+input``). What is guessed is in
the same form, so that it can be said, copied and changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from indelible.errors import DataError, UnknownNameError, suggest

FIELDS = ("prompt", "answer", "text", "label", "chosen", "rejected", "group")

NEEDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "text": (("text",), ("prompt", "answer")),
    "instruct": (("prompt", "answer"), ("prompt",)),
    "reason": (("prompt", "answer"), ("prompt",)),
    "classify": (("text", "label"), ("prompt", "label")),
    "preference": (("prompt", "chosen", "rejected"), ("chosen", "rejected")),
    "reward": (("prompt", "answer"),),
}
"""Objective -> fields that are enough for it, best first. A prompt alone has to be a conversation with an answer."""

_PAIRS = (
    "prompt:completion prompt:response prompt:answer question:answer instruction+input:output instruction:output "
    "instruction+context:response instruction:response problem:solution question:response query:response query:answer "
    "input:output"
)
_TEXTS = "text content document sentence review article body"
_LABELS = "label labels sentiment category class"
_QUESTIONS = "prompt question instruction+input instruction query"


def _pairs() -> list[dict[str, str]]:
    split = [pair.split(":") for pair in _PAIRS.split()]
    return [{"prompt": prompt, "answer": answer} for prompt, answer in split]


_CONVERSATIONS = ("messages", "conversations", "conversation")

WELL_KNOWN: Mapping[str, Sequence[Mapping[str, str]]] = {
    "text": [*({"text": name} for name in (*_TEXTS.split(), *_CONVERSATIONS)), *_pairs()],
    "instruct": [*_pairs(), *({"prompt": name} for name in _CONVERSATIONS)],
    "reason": [*_pairs(), *({"prompt": name} for name in _CONVERSATIONS)],
    "classify": [{"text": text, "label": label} for label in _LABELS.split() for text in (*_TEXTS.split(), "prompt")],
    "preference": [
        *(
            {"prompt": name, "chosen": "chosen", "rejected": "rejected"}
            for name in (*_QUESTIONS.split(), *_CONVERSATIONS)
        ),
        {"chosen": "chosen", "rejected": "rejected"},
    ],
    "reward": _pairs(),
}
"""Objective -> mappings to try where the user gives none; the first whose columns are all there is taken."""


def needs_of(objective: str) -> tuple[tuple[str, ...], ...]:
    """The fields that an objective needs.

    Raises:
        UnknownNameError: for an objective that cannot train on users' own data.
    """
    if objective not in NEEDS:
        raise UnknownNameError("objective for own data", objective, NEEDS)
    return NEEDS[objective]


def guess_columns(source: str, objective: str, columns: Sequence[str]) -> dict[str, str]:
    """A mapping by well-known names.

    Raises:
        DataError: if none fits.
    """
    for known in WELL_KNOWN[objective]:
        if all(set(spec.split("+")) <= set(columns) for spec in known.values()):
            return dict(known)
    wanted = " and ".join(needs_of(objective)[0])
    raise DataError(
        f"{source} has no columns with names that objective {objective!r} knows; it has {', '.join(columns)}.",
        f"Map its columns to {wanted}.",
    )


def check_columns(source: str, objective: str, mapped: Mapping[str, str], columns: Sequence[str]) -> dict[str, str]:
    """The user's mapping, completed by columns that have the very name of a field that is needed.

    Raises:
        DataError: for a column that is not there, or a needed field without a column.
    """
    for field, spec in mapped.items():
        for column in parts(spec, columns):
            if column not in columns:
                raise DataError(f"{source} has no column {column!r} (mapped to {field}).", _hint(column, columns))
    whole = {field: field for field in FIELDS if field in columns} | dict(mapped)
    for needed in needs_of(objective):
        if set(needed) <= set(whole):
            return {field: whole[field] for field in needed} | {
                field: spec for field, spec in mapped.items() if field == "group"
            }
    missing = next(field for field in needs_of(objective)[0] if field not in whole)
    raise DataError(
        f"No column of {source} is mapped to {missing!r}, which objective {objective!r} needs.",
        f"Map one. {_hint(missing, columns)}",
    )


def parts(spec: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that a mapping's right side names. A column whose own name has a ``+`` is one column."""
    return (spec,) if spec in columns else tuple(part.strip() for part in spec.split("+"))


def _hint(name: str, columns: Sequence[str]) -> str:
    near = suggest(name, columns)
    return f"Its columns are {', '.join(columns)}." + (f" {near}" if near.startswith("Did you mean") else "")
