"""Exams as a study takes them: by which criterion, and as rows that say when and of which copy of the model.

Answers are judged as everywhere (see exam.criterion), unless the study is ``as_published``: then edits are judged by
their first token, and knowledge from pre-training by the answer's being somewhere in 50 tokens, across ends of lines
(Wen & Zhang, arXiv 2507.14198).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from indelible.exam.criterion import appears
from indelible.exam.exam import Answer, answers_frame, take_exam
from indelible.exam.kind import versions_of
from indelible.exam.proof import Ways
from indelible.exam.questions import Question

PUBLISHED_TOKENS = 50
"""Tokens in which the published protocol looks for the answer to an intrinsic prompt."""


def ask(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    *,
    phase: str,
    step: int = 0,
    tokens: int = 0,
    copy: int = 0,
    published: bool = False,
    progress: Callable[[int, int, str], None],
    ways: Ways,
) -> pd.DataFrame:
    """Tidy rows of one exam: those of `exam.exam.answers_frame`, after phase, step and tokens (of tuning, so far) and
    copy (of the model, where each fact is edited in one of its own)."""
    budget = PUBLISHED_TOKENS if published else None
    answers = take_exam(model, tokenizer, questions, max_new_tokens=budget, progress=progress, ways=ways)
    rows = answers_frame(answers)
    if published:
        rows["success"] = [_published_success(answer) for answer in answers]
    rows.insert(0, "phase", phase)
    rows.insert(1, "step", step)
    rows.insert(2, "tokens", tokens)
    rows.insert(3, "copy", copy)
    return rows


def _published_success(answer: Answer) -> bool:
    if answer.question.fact_set == "edited" and answer.question.kind != "neighbour":
        return answer.first_token
    return appears(answer.generated, answer.question.target)


def keyed(options: dict[str, Any], also: Sequence[str]) -> dict[str, Any]:
    """Options of a step that asks, with the versions of the kinds that it asks beside those of every exam; where there
    are none, nothing is said of them."""
    del options["also"]
    return options | ({"also": versions_of(also)} if also else {})


def with_curve(rows: pd.DataFrame, points: pd.DataFrame, last: int) -> pd.DataFrame:
    """The callback's curve before the rows of the exam at the ``last`` step; a point there, where tuning stopped early,
    would repeat it."""
    points = points[points["step"] < last].copy()
    if points.empty:
        return rows
    points.insert(0, "phase", "tuning")
    points.insert(2, "copy", rows["copy"].iloc[0])
    return pd.concat([points[list(rows.columns)], rows], ignore_index=True)


def successes(rows: pd.DataFrame) -> str:
    """How many facts' own prompts succeeded, in words: "20 of 24 edited, 55 of 60 intrinsic"."""
    prompts = rows[rows["kind"] == "prompt"]
    shares = [
        f"{int(group['success'].sum())} of {len(group)} {name}"
        for name, group in prompts.groupby("fact_set", sort=True)
    ]
    return ", ".join(shares)
