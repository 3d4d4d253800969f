"""Users' own training data as a task: a file or a data set of the hub, by column mapping, for any objective.

What is wrong with the data is said before a model is loaded: the source is read when the task is made, every row is
checked, and rows without what the objective needs are counted and left out. A value of the wrong kind, or a label that
is not among the labels, is an error that names its row: skipping it would hide a wrong mapping.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from indelible.errors import ConfigError, DataError, UnknownNameError, suggest
from indelible.tuning.own_data.cells import Cells, SkipError
from indelible.tuning.own_data.columns import FIELDS, check_columns, guess_columns, needs_of
from indelible.tuning.own_data.files import Rows, hub_version, is_file, read_bytes, read_file, read_hub
from indelible.tuning.own_data.turns import Turn, TurnsError, as_prompt, as_text, split_answer
from indelible.tuning.tasks.answers import same_answer
from indelible.tuning.tasks.task import Example, Task, shuffled

MOST_LABELS = 50
"""More different values than this are taken for a column that holds no labels."""

DEFAULT_SPLIT = "train"


class DataSettings(BaseModel):
    """Where a user's own training data are and what their columns mean.

    Unknown fields in ``columns`` raise UnknownNameError; anything else that is wrong raises pydantic's ValidationError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        min_length=1, description="a .jsonl, .json, .csv, .tsv or .parquet file, or the id of a data set on the hub"
    )
    columns: dict[str, str] | None = Field(
        None,
        description="field (prompt, answer, text, label, chosen, rejected, group) -> column, or several: a+b; None: "
        "guess by well-known names",
    )
    split: str | None = Field(None, min_length=1, description="of a hub data set; None: train")
    config: str | None = Field(None, min_length=1, description="of a hub data set that has several")
    labels: tuple[str, ...] | None = Field(
        None, description="classify: the label words; labels that are numbers count into them; None: as in the data"
    )

    @field_validator("columns")
    @classmethod
    def _known_fields(cls, columns: dict[str, str] | None) -> dict[str, str] | None:
        for field in columns or ():
            if field not in FIELDS:
                raise UnknownNameError("field of an example", field, FIELDS)
        return columns

    @field_validator("labels")
    @classmethod
    def _several_labels(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and (len(set(labels)) < max(2, len(labels)) or not all(map(str.strip, labels))):
            raise ValueError(f"two or more different label words are needed, not {labels!r}")
        return labels


def data_task(settings: DataSettings, objective: str) -> Task:
    """A task of a user's data, read and checked.

    Prompts are taken as they are, except that ``reason`` and ``reward`` ask for the answer ("Answer:" on a line of its
    own) where a prompt does not end with a colon, as the built-in problems do.

    Args:
        settings: where the data are.
        objective: name of the objective that trains on them.

    Raises:
        DataError: the source cannot be read or is malformed, columns or labels are not what they should be, or no row
            is usable.
        ConfigError: a split or a config of a file.
        UnknownNameError: an objective that cannot train on users' own data.
    """
    needs_of(objective)
    data = _rows(settings)
    if settings.columns:
        columns = check_columns(settings.source, objective, settings.columns, data.columns)
    else:
        columns = guess_columns(settings.source, objective, data.columns)
    labels = _labels(settings, data, columns) if objective == "classify" else ()
    skipped: Counter[str] = Counter()
    examples = []
    for row in data.rows:
        cells = Cells(settings.source, row, columns, data.columns)
        try:
            examples.append(_example(cells, objective, labels))
        except SkipError as reason:
            skipped[str(reason)] += 1
    left_out = f"{skipped.total()} rows left out" + "".join(f", {count} {why}" for why, count in skipped.most_common())
    if not examples:
        raise DataError(
            f"{settings.source} has no usable row for objective {objective!r}: {left_out}.", "Check the columns."
        )
    mapping = ", ".join(f"{field}: {spec}" for field, spec in columns.items())
    how = "" if settings.columns else " (guessed)"
    origin = f"{settings.source}: {len(examples)} examples from columns {{{mapping}}}{how}"
    kept = tuple(examples)

    def stream(seed: int) -> Iterator[Example]:
        return shuffled(kept, seed)

    return Task(stream, labels, f"{origin}, {left_out}" if skipped else origin)


def data_version(settings: DataSettings) -> str:
    """What tells one state of the data from another: the SHA-256 of a file's bytes, or a hub data set's own hash.

    Raises:
        DataError: if the source cannot be read.
    """
    _check_split(settings)
    if not is_file(settings.source):
        return hub_version(settings.source, settings.config, settings.split or DEFAULT_SPLIT)
    return hashlib.sha256(read_bytes(Path(settings.source).expanduser())).hexdigest()


def _rows(settings: DataSettings) -> Rows:
    _check_split(settings)
    if is_file(settings.source):
        return read_file(settings.source)
    return read_hub(settings.source, settings.config, settings.split or DEFAULT_SPLIT)


def _check_split(settings: DataSettings) -> None:
    for name in ("split", "config"):
        if getattr(settings, name) is not None and is_file(settings.source):
            raise ConfigError(f"{name} is {getattr(settings, name)!r}, but {settings.source} is a file.", "Remove it.")


def _example(cells: Cells, objective: str, labels: tuple[str, ...]) -> Example:
    group = cells.group()
    if objective == "classify":
        return Example(cells.text("text" if cells.has("text") else "prompt"), _label(cells, labels), group)
    if objective == "preference":
        prompt, chosen, rejected = _preferred(cells)
        return Example(prompt, chosen, group, rejected)
    if objective == "text" and cells.has("text"):
        turns = cells.turns("text")
        return Example("", cells.text("text") if turns is None else as_text(turns), group)
    prompt, answer = _answered(cells)
    if objective in ("reason", "reward") and not prompt.endswith(":"):
        prompt += "\nAnswer:"
    score = partial(same_answer, answer=answer) if objective == "reward" else None
    return Example(prompt, answer, group, score=score)


def _answered(cells: Cells) -> tuple[str, str]:
    """Prompt and answer; a conversation holds both."""
    if cells.has("answer"):
        return _prompt(cells), _answer(cells, "answer")
    turns = cells.turns("prompt")
    if turns is None:
        raise cells.wrong("prompt", "no conversation, and no column is mapped to answer")
    before, answer = _split(turns)
    return _filled(as_prompt(before), "prompt"), _filled(answer, "answer")


def _preferred(cells: Cells) -> tuple[str, str, str]:
    """Prompt, preferred answer and the other; without a prompt, the turns that both share are it."""
    if cells.has("prompt"):
        prompt, chosen, rejected = _prompt(cells), _answer(cells, "chosen"), _answer(cells, "rejected")
    else:
        both = [cells.turns(field) for field in ("chosen", "rejected")]
        for field, turns in zip(("chosen", "rejected"), both, strict=True):
            if turns is None:
                raise cells.wrong(field, "no conversation, and no column is mapped to prompt")
        (before, chosen), (other, rejected) = (_split(turns or ()) for turns in both)
        if before != other:
            raise SkipError("whose answers follow different prompts")
        prompt = as_prompt(before)
    if chosen == rejected:
        raise SkipError("with the same answer twice")
    return _filled(prompt, "prompt"), _filled(chosen, "chosen"), _filled(rejected, "rejected")


def _prompt(cells: Cells) -> str:
    turns = cells.turns("prompt")
    return _filled(cells.text("prompt") if turns is None else as_prompt(turns), "prompt")


def _answer(cells: Cells, field: str) -> str:
    """An answer; of a conversation, what the assistant says last."""
    turns = cells.turns(field)
    return _filled(cells.text(field) if turns is None else _split(turns)[1], field)


def _split(turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], str]:
    try:
        return split_answer(turns)
    except TurnsError as error:
        raise SkipError(f"with {error}") from None


def _filled(text: str, field: str) -> str:
    if not text:
        raise SkipError(f"without {field}")
    return text


def _labels(settings: DataSettings, data: Rows, columns: Mapping[str, str]) -> tuple[str, ...]:
    """The label words: the user's, those that a hub data set declares, or all values of the column."""
    declared = settings.labels or data.label_names.get(columns["label"])
    if declared:
        return declared
    values = set()
    for row in data.rows:
        try:
            values.add(Cells(settings.source, row, columns, data.columns).text("label"))
        except SkipError:
            continue
    if len(values) == 1 or len(values) > MOST_LABELS:
        raise DataError(
            f"Column {columns['label']!r} of {settings.source} holds {len(values)} different labels.",
            f"Map a column with 2 to {MOST_LABELS} of them to label, or name the label words (labels).",
        )
    return tuple(sorted(values, key=lambda word: (not word.isdecimal(), int(word) if word.isdecimal() else 0, word)))


def _label(cells: Cells, labels: tuple[str, ...]) -> str:
    word = cells.text("label")
    if word in labels:
        return word
    if word.isdecimal() and int(word) < len(labels):
        return labels[int(word)]
    raise DataError(
        f"{cells.source}, {cells.row.place}: the label {word!r} is not among {', '.join(map(repr, labels))}.",
        f"Name all label words (labels), or map another column. {suggest(word, labels)}",
    )
