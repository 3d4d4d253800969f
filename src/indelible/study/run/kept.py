"""What finished steps keep in their folders, as the steps that build on them and the run's tables read it back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from indelible.documents import from_json
from indelible.edits.deltas.delta import Edit
from indelible.errors import StoreError
from indelible.exam.kind import PLAIN
from indelible.exam.questions import Question, questions_for
from indelible.facts.fact import Fact, fact_from
from indelible.files import damaged, read_text

FACTS, BYSTANDERS, ROWS, TUNING = "facts.json", "bystanders.json", "rows.parquet", "tuning.json"


@dataclass(frozen=True)
class ChosenFacts:
    """What a ``select`` step chose: facts to edit, and facts only to ask."""

    edited: list[Fact]
    intrinsic: list[Fact]

    def in_copy(self, copy: int | None) -> ChosenFacts:
        """What concerns one copy: the fact that is edited in it, and all intrinsic facts; None stands for no copy."""
        return self if copy is None else ChosenFacts([self.edited[copy]], self.intrinsic)

    def questions(self, edit: Edit | None, also: Sequence[str], tokenizer: Any) -> list[Question]:
        """The whole exam, edited facts first, as it is put to a model that holds the edit; ``also``: kinds beside those
        of every exam."""
        context, kinds = "" if edit is None else edit.context, (*PLAIN, *also)
        edited = questions_for(self.edited, "edited", context=context, kinds=kinds, tokenizer=tokenizer)
        return edited + questions_for(self.intrinsic, "intrinsic", context=context, kinds=kinds, tokenizer=tokenizer)

    def spoken_of(self, published: bool) -> list[Fact]:
        """Facts that no training line may speak of; as published, an edited fact's true object is overlooked."""
        edited = self.edited
        if published:
            edited = [replace(fact, true_object=fact.new_object or "") for fact in edited]
        return [*edited, *self.intrinsic]


def chosen_facts(folder: Path) -> ChosenFacts:
    """The facts that a finished ``select`` step chose."""
    sets = read_json(folder / FACTS)
    return ChosenFacts(**{name: [fact_from(entry) for entry in entries] for name, entries in sets.items()})


def chosen_bystanders(folder: Path) -> list[Fact]:
    """The facts that a finished ``bystanders`` step chose."""
    return [fact_from(entry) for entry in read_json(folder / BYSTANDERS)]


def kept_edit(inputs: Mapping[str, Path], copy: int | None = None) -> Edit | None:
    """The edit, or that of one copy, that a step builds on; None where it builds on the base model."""
    return Edit.load(edit_path(inputs["edit"], copy)) if "edit" in inputs else None


def edit_path(folder: Path, copy: int | None) -> Path:
    """Where an edit step keeps its edit, or that of one copy."""
    return folder / ("edit.safetensors" if copy is None else f"edits/{copy:04d}.safetensors")


def keep_rows(folder: Path, rows: pd.DataFrame) -> None:
    """Write the rows of a step's exams."""
    rows.to_parquet(folder / ROWS, index=False)


def write_json(path: Path, content: Any) -> None:
    """Write what ``read_json`` reads."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read what ``write_json`` wrote; a StoreError where it is damaged."""
    try:
        return from_json(read_text(path, "file of a step", StoreError))
    except ValueError:
        raise damaged(path) from None
