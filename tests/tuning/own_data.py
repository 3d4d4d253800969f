"""Files of rows as users have them, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from indelible.errors import IndelibleError
from indelible.tuning.objective import OBJECTIVES
from indelible.tuning.own_data.data import data_task
from indelible.tuning.settings import DataSettings
from indelible.tuning.task import Example, Task

QUESTIONS = [{"question": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(6)]
Write = Callable[..., str]
"""``write(content, name)``: a file of rows, text or bytes; its path."""


def writer(folder: Path) -> Write:
    """Writes into a folder, in the form that a file's name says."""

    def write(content: Sequence[Any] | str | bytes, name: str = "data.jsonl") -> str:
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_bytes(content.encode())
        elif name.endswith(".parquet"):
            pd.DataFrame(list(content)).to_parquet(path)
        elif name.endswith((".csv", ".tsv")):
            pd.DataFrame(list(content)).to_csv(path, index=False, sep="\t" if name.endswith(".tsv") else ",")
        elif name.endswith(".json"):
            path.write_text(json.dumps(list(content), indent=1))
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in content))
        return str(path)

    return write


def task_of(source: str, objective: str, **settings: Any) -> Task:
    return data_task(DataSettings(source=source, **settings), OBJECTIVES.get(objective))


def examples_of(source: str, objective: str, **settings: Any) -> list[Example]:
    """All examples, sorted by their text."""
    return sorted(task_of(source, objective, **settings)(0), key=lambda example: example.text)


def error_of(source: str, objective: str = "reason", **settings: Any) -> str:
    """The one line of the error, which has to say what to do as well."""
    with pytest.raises(IndelibleError) as caught:
        task_of(source, objective, **settings)
    assert "\n" not in str(caught.value) and caught.value.what and caught.value.fix and len(caught.value.what) < 400
    return str(caught.value)
