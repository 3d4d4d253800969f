"""Retention over training steps: how a curve is read off the rows, with its pointwise band."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from indelible.analysis.metrics import QUESTION, is_control, rate, require_columns
from indelible.analysis.statistics import by_seed, rate_interval

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
        draws: bootstrap draws per point.
        generator: the source of randomness.

    Returns:
        Name of the series (as in `SERIES`) -> points by step, from 0 to the end of tuning; a series of which nothing
        had succeeded before tuning, or nothing was asked afterwards, is left out. The control has only "intrinsic".

        Seeds may stop at different steps. A point stands only where every seed was asked or had already ended; a seed
        that ended keeps its last answers, because its model no longer changed. Seeds that failed are left out as long
        as any finished; when none did, the curve goes as far as they came.
    """
    require_columns(rows, ["editor", "phase", "step", *QUESTION, "success"], "table of answers")
    control = is_control(rows)
    before_phase = "base" if control else "edited"
    later = rows[rows["phase"].isin(["tuning", "tuned"])]
    finished = set(later.loc[later["phase"] == "tuned", "seed"])
    later = later[later["seed"].isin(finished)] if finished else later
    before = rows[(rows["phase"] == before_phase) & rows["success"].astype("boolean").fillna(False)]
    known = before.loc[:, QUESTION]
    # The last point of a curve and the exam at the end may fall on one step; the exam at the end is kept.
    in_time = later.assign(end=later["phase"] == "tuned").sort_values("end", kind="stable")
    answers = in_time.drop_duplicates([*QUESTION, "step"], keep="last")
    curves = {}
    for name, (fact_set, kind) in SERIES.items():
        if control and fact_set == "edited":
            continue
        asked = answers[(answers["fact_set"] == fact_set) & (answers["kind"] == kind)]
        points = _points(known, asked, bool(finished), draws=draws, generator=generator)
        if points:
            curves[name] = [CurvePoint(0, 1.0, None, None), *points]
    return curves


def _points(
    known: pd.DataFrame, asked: pd.DataFrame, finished: bool, *, draws: int, generator: np.random.Generator
) -> list[CurvePoint]:
    # Facts that had not succeeded stay with nothing asked: they belong to the sample that intervals redraw.
    counted = asked.merge(known.assign(asked=1), on=QUESTION, how="left").fillna({"asked": 0})
    steps_of = {seed: set(part["step"]) for seed, part in asked.groupby("seed")}
    points = []
    for step in sorted(set().union(*steps_of.values()) if steps_of else ()):
        if step == 0:
            continue
        at = {seed: _step_to_read(steps, step, finished) for seed, steps in steps_of.items()}
        if None in at.values():
            continue
        here = counted[counted["step"] == counted["seed"].map(at)]
        succeeded = here["success"].astype("boolean").fillna(False).astype("int64")
        asked_about = here["asked"].astype("int64")
        count = here.assign(hits=succeeded * asked_about, asked=asked_about)
        count = count[["seed", "fact_id", "hits", "asked"]].groupby(["seed", "fact_id"], observed=True).sum()
        value = rate(count)
        if value is None:
            continue
        interval = rate_interval(by_seed(count), draws=draws, generator=generator)
        low, high = (interval.low, interval.high) if interval else (None, None)
        points.append(CurvePoint(int(step), value, low, high))
    return points


def _step_to_read(steps: set[int], step: int, finished: bool) -> int | None:
    """The step whose answers stand for ``step`` in a seed, or None when it was under way but not asked."""
    if step in steps:
        return step
    return max(steps) if finished and step > max(steps) else None
