"""Users' own training data as a task: a file or a data set of the hub, by column mapping, for any objective.

What is wrong with the data is said before a model is loaded: the source is read when the task is made, every row is
checked, and rows without what the objective needs are counted and left out. A value of the wrong kind, or a label that
is not among the labels, is an error that names its row: skipping it would hide a wrong mapping.
"""

from __future__ import annotations

import math
import numbers
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from indelible.errors import DataError, suggest
from indelible.tuning.answers import found_answer
from indelible.tuning.objective import Objective
from indelible.tuning.own_data.columns import check_columns, guess_columns, parts
from indelible.tuning.own_data.sources import read_rows
from indelible.tuning.settings import DataSettings
from indelible.tuning.task import Example, Task, shuffled
from indelible.tuning.turns import Turns, as_prompt, as_text, split_answer, turns_of

MOST_LABELS = 50
"""More different values than this are taken for a column that holds no labels."""


Cells = Mapping[str, str | Turns]
"""Field -> what a row holds there: a text or a conversation, not empty."""


class SkipError(ValueError):
    """Why a row is left out."""


class CellError(ValueError):
    """What is wrong with a field of a row."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


def data_task(settings: DataSettings, objective: Objective[Any]) -> Task:
    """A task of a user's data, read and checked.

    Prompts are taken as they are, except where the objective asks for the answer ("Answer:" on a line of its own) and a
    prompt does not end with a colon.

    Raises:
        DataError: the source cannot be read or is malformed, columns or labels are not what they should be, no row is
            usable, or the objective takes no data but its tasks'.
        ConfigError: a split or a config of a file.
    """
    source, needs = settings.source, objective.needs
    if not needs:
        raise DataError(f"The objective {objective.name!r} takes no data of one's own.", "Name a task instead of data.")
    data = read_rows(settings)
    if settings.columns:
        columns = check_columns(source, needs, settings.columns, data.columns)
    else:
        columns = guess_columns(source, needs, data.columns)
    where = {field: parts(spec, data.columns) for field, spec in columns.items()}
    skipped, made, words = Counter[str](), dict[str, Example](), set[str]()
    for place, values in data.rows.items():
        try:
            cells = _cells(values, where)
            words.add(str(cells.get("label", "")))  # those of rows that are left out are labels too
            if lacking := [field for field in columns if field != "group" and field not in cells]:
                raise SkipError(f"without {lacking[0]}")
            made[place] = _example(cells, asks=objective.asks)
        except SkipError as reason:
            skipped[str(reason)] += 1
        except CellError as error:
            cell = f"{source}, {place}, column {columns[error.field]!r}"
            raise DataError(f"{cell}: {error}.", "Mend it, or map other columns.") from None
    left_out = f"{skipped.total()} rows left out" + "".join(f", {count} {why}" for why, count in skipped.most_common())
    if not made:
        what = f"{source} has no usable row for objective {objective.name!r}: {left_out}."
        raise DataError(what, "Check the columns.")
    mapping = ", ".join(f"{field}: {spec}" for field, spec in columns.items())
    origin = f"{source}: {len(made)} examples from columns {{{mapping}}}{'' if settings.columns else ' (guessed)'}"
    labels: tuple[str, ...] = ()
    if spec := columns.get("label"):
        labels = settings.labels or data.label_names.get(spec) or _labels(words - {""}, f"Column {spec!r} of {source}")
        made = {place: _labelled(example, labels, f"{source}, {place}") for place, example in made.items()}
    return Task(partial(shuffled, tuple(made.values())), labels, f"{origin}, {left_out}" if skipped else origin)


def row_texts(settings: DataSettings) -> list[str]:
    """What stands in each row of a source as one text, whatever its columns mean.

    Raises:
        DataError: as ``data_task``, or if no row holds a text.
    """
    rows = [[_text(value) for value in values.values()] for values in read_rows(settings).rows.values()]
    texts = [text for cells in rows if (text := " ".join(filter(None, cells)))]
    if not texts:
        raise DataError(f"{settings.source} holds no text.", "Give what the model was tuned on.")
    return texts


def _text(value: Any) -> str:
    try:
        turns = turns_of(value)
    except ValueError:
        return ""
    return as_text(turns) if turns else value.strip() if isinstance(value, str) else ""


def _cells(values: Mapping[str, Any], where: Mapping[str, Sequence[str]]) -> Cells:
    """A row by fields, of each its columns. Of several columns the first must not be empty."""
    cells: dict[str, str | Turns] = {}
    for field, columns in where.items():
        plain = "label" in where or field == "group" or len(columns) > 1
        try:
            turns = None if plain else turns_of(values.get(columns[0]))
            texts = [] if turns else [_written(values.get(column)) for column in columns]
        except ValueError as error:
            raise CellError(field, str(error)) from None
        if turns or texts[0]:
            cells[field] = turns or "\n".join(filter(None, texts))
    return cells


def _written(value: Any) -> str:
    if value is None or value == [] or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, numbers.Number):
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    raise ValueError(f"a {type(value).__name__} where a text is needed")


def _example(cells: Cells, *, asks: bool) -> Example:
    """The row as an example of the kind that its fields make; a label as it is written."""
    group = str(cells.get("group", ""))
    if "label" in cells:
        return Example(str(cells.get("text") or cells["prompt"]), str(cells["label"]), group)
    if "text" in cells:
        return Example("", as_text(cells["text"]), group)
    if "rejected" in cells:
        prompt, chosen = _asked_and_answered(cells, "chosen")
        other, rejected = _asked_and_answered(cells, "rejected")
        if prompt != other:
            raise SkipError("whose answers follow different prompts")
        if chosen == rejected:
            raise SkipError("with the same answer twice")
        return Example(prompt, chosen, group, rejected)
    prompt, answer = _asked_and_answered(cells, "answer")
    if asks and not prompt.endswith(":"):
        prompt += "\nAnswer:"
    return Example(prompt, answer, group, score=partial(found_answer, answer=answer))


def _asked_and_answered(cells: Cells, field: str) -> tuple[str, str]:
    """The prompt, and the answer in a field of its own; without either, a conversation holds both."""
    only = field if field in cells else "prompt"
    if len({"prompt", field} & set(cells)) < 2 and isinstance(cells[only], str):
        lacking = "answer" if only == "prompt" else "prompt"
        raise CellError(only, f"no conversation, and no column is mapped to {lacking}")
    if (parted := split_answer(cells[only])) is None:
        raise SkipError("with no turn of the assistant in the conversation")
    before, answer = parted
    prompt = as_prompt(cells["prompt"] if field in cells and "prompt" in cells else before)
    for name, text in (("prompt", prompt), (field, answer)):
        if not text:
            raise SkipError(f"without {name}")
    return prompt, answer


def _labels(values: Collection[str], where: str) -> tuple[str, ...]:
    """All values of the labels' column in order, numbers first."""
    if len(values) == 1 or len(values) > MOST_LABELS:
        raise DataError(
            f"{where} holds {len(values)} different labels.",
            f"Map a column with 2 to {MOST_LABELS} of them to label, or name the label words (labels).",
        )
    return tuple(sorted(values, key=lambda word: (not word.isdecimal(), int(word) if word.isdecimal() else 0, word)))


def _labelled(example: Example, labels: tuple[str, ...], where: str) -> Example:
    """The example with a label word, in the place of a number that counts into them."""
    word = example.answer
    if word in labels:
        return example
    if word.isdecimal() and int(word) < len(labels):
        return replace(example, answer=labels[int(word)])
    raise DataError(
        f"{where}: the label {word!r} is not among {', '.join(map(repr, labels))}.",
        f"Name all label words (labels), or map another column. {suggest(word, labels)}",
    )
