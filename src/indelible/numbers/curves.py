"""Retention over training steps: how a curve is read off the rows, with its pointwise band."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indelible.numbers.bootstrap import FEWEST_FACTS, Interval, Sample, contrast, fact_draws
from indelible.numbers.measures import QUESTION, is_control, require_columns

SERIES = MappingProxyType(
    {"edited": ("edited", "prompt"), "paraphrase": ("edited", "paraphrase"), "intrinsic": ("intrinsic", "prompt")}
)
"""Name of a curve -> the set and kind of question that it follows."""


@dataclass(frozen=True)
class CurvePoint:
    """One point of a retention curve.

    Attributes:
        step: training steps done; 0 is the moment before tuning, where retention is 1 by definition.
        retention: share of the questions that had succeeded before tuning and succeed at this step.
        low: lower end of the pointwise 95% interval, or None.
        high: upper end, or None.
    """

    step: int
    retention: float
    low: float | None
    high: float | None


def retention_curves(rows: pd.DataFrame, *, draws: int, generator: np.random.Generator) -> dict[str, list[CurvePoint]]:
    """The retention curves of one arm.

    Args:
        rows: tidy rows of one arm.
        draws: bootstrap draws, the same for all points of a curve, so that its band is no rougher than the curve.
        generator: the source of randomness.

    Returns:
        Name of the series (as in `SERIES`) -> points by step, from 0 to the end of tuning; a series of which nothing
        had succeeded before tuning, or nothing was asked afterwards, is left out. The control has only "intrinsic".

        Seeds, and copies of isolated arms, may stop at different steps. A point stands only where each was asked or had
        already ended; one that ended keeps its last answers, because its model no longer changed. Seeds that failed are
        left out as long as any finished; when none did, the curve goes as far as they came.
    """
    require_columns(rows, ["editor", "phase", "step", *QUESTION, "success"], "table of answers")
    control = is_control(rows)
    later = rows[rows["phase"].isin(["tuning", "tuned"])]
    finished = set(later.loc[later["phase"] == "tuned", "seed"])
    later = later[later["seed"].isin(finished)] if finished else later
    before = rows[rows["phase"] == ("base" if control else "edited")]
    curves = {}
    for name, (fact_set, kind) in SERIES.items():
        if control and fact_set == "edited":
            continue
        earlier, asked = (part[(part["fact_set"] == fact_set) & (part["kind"] == kind)] for part in (before, later))
        points = _points(earlier, asked, bool(finished), draws=draws, generator=generator)
        if points:
            curves[name] = [CurvePoint(0, 1.0, None, None), *points]
    return curves


def _points(
    before: pd.DataFrame, later: pd.DataFrame, finished: bool, *, draws: int, generator: np.random.Generator
) -> list[CurvePoint]:
    """The points after step 0 of one series.

    Args:
        before: answers before tuning, to questions of the series.
        later: answers in and after tuning, of the seeds that count.
        finished: whether those seeds came to their end.
        draws: bootstrap draws.
        generator: the source of randomness.
    """
    if later.empty:
        return []
    # The last point of a curve and the exam at the end may fall on one step; written last, the exam at the end is kept.
    later = later.assign(end=later["phase"] == "tuned").sort_values("end", kind="stable")
    question_of = _numbers(later, QUESTION)
    questions = int(question_of.max()) + 1
    steps, step_of = np.unique(later["step"].to_numpy(dtype=np.int64), return_inverse=True)
    # Each copy of an isolated arm is a model of its own, which may stop at a step of its own.
    model_of = _numbers(later, ["seed", "copy"])
    model, seed, fact = (
        _of_questions(numbers, question_of)
        for numbers in (model_of, _numbers(later, ["seed"]), _numbers(later, ["fact_id"]))
    )
    known = _of_questions(_known(before, later), question_of)
    answered = np.full((questions, len(steps)), np.nan)
    answered[question_of, step_of] = later["success"].astype("Float64").fillna(0.0).to_numpy(dtype=np.float64)
    asked_at = np.zeros((int(model.max()) + 1, len(steps)), dtype=bool)
    asked_at[model_of, step_of] = True
    size = (int(seed.max()) + 1, int(fact.max()) + 1)
    models = int(model.max()) + 1
    fact_weights = generator.standard_exponential((size[1], draws))
    half_facts = generator.standard_gamma(0.5, (2, draws))
    normal = generator.standard_normal((size[0], draws))
    model_normal = generator.standard_normal((models, draws)) if models > size[0] else None
    points = []
    for place, step in enumerate(steps):
        read = _steps_to_read(asked_at, place, finished)
        if step == 0 or read is None:
            continue
        here = answered[np.arange(questions), read[model]]
        asked = known.astype(bool) & ~np.isnan(here)
        sample = _sample(here == 1, asked, seed, fact, size)
        if model_normal is not None:
            sample = replace(sample, by_model=_sample(here == 1, asked, model, fact, (models, size[1])))
        if not sample.facts:
            continue
        interval: Interval | None = None
        if sample.facts >= FEWEST_FACTS:
            drawn = fact_draws(sample, fact_weights, half_facts)
            interval = contrast([sample], [1.0], [drawn], normal, model_normal).interval
        low, high = (interval.low, interval.high) if interval else (None, None)
        points.append(CurvePoint(int(step), sample.rate, low, high))
    return points


def _numbers(rows: pd.DataFrame, columns: list[str]) -> NDArray[np.int64]:
    """(rows,) numbers from 0, equal where the columns are equal, in the order of their values."""
    return rows.groupby(columns, sort=True, observed=True).ngroup().to_numpy().astype(np.int64)


def _of_questions(of_rows: NDArray[np.int64], question_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is the same in all rows of a question, per question."""
    found = np.zeros(int(question_of.max()) + 1, dtype=np.int64)
    found[question_of] = of_rows
    return found


def _known(before: pd.DataFrame, later: pd.DataFrame) -> NDArray[np.int64]:
    """(rows of later,) 1 where the question had succeeded before tuning."""
    succeeded = before.loc[before["success"].astype("boolean").fillna(False), QUESTION]
    keys = set(succeeded.itertuples(index=False, name=None))
    return np.array([key in keys for key in later[QUESTION].itertuples(index=False, name=None)], dtype=np.int64)


def _steps_to_read(asked_at: NDArray[np.bool_], place: int, finished: bool) -> NDArray[np.int64] | None:
    """(models,) at which step each model's answers stand for step number ``place``; None when one was under way but not
    asked."""
    last = asked_at.shape[1] - 1 - asked_at[:, ::-1].argmax(axis=1)
    ended = (last < place) & finished
    if not (asked_at[:, place] | ended).all():
        return None
    return np.where(asked_at[:, place], place, last).astype(np.int64)


def _sample(
    kept: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    row: NDArray[np.int64],
    fact: NDArray[np.int64],
    size: tuple[int, int],
) -> Sample:
    """Questions counted into a table, by seed or model and by fact."""
    hits, counted = (
        np.bincount(row * size[1] + fact, weights=marks, minlength=size[0] * size[1]).reshape(size)
        for marks in (asked & kept, asked)
    )
    return Sample(hits.astype(np.float64), counted.astype(np.float64), "series")
