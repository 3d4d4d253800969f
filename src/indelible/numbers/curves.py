"""Retention over training, by steps or by tokens seen: how a curve is read off the rows, with its pointwise band.

A point is the rate of its curve at another moment, drawn in the rate's own draws: the end of a curve and its band are
the retention that the tables give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from indelible.numbers.answers import Answers, counts
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import QUESTION, Rate, is_control, rates, require_columns

MODEL = ["seed", "copy"]
Curve = Mapping[int, Estimate]
"""Training step, or dose -> the rate then with its pointwise interval; 0 is the moment before tuning, where what is
asked among what succeeded then is 1 by definition."""


def retention_curves(answers: Answers, arm: str, doses: Sequence[int] = ()) -> dict[str, Curve]:
    """Name of the series -> points from step 0 to the end of tuning, for every rate that shows as a curve; a series of
    which nothing can be counted before tuning, or nothing was asked afterwards, is left out.

    With doses (tokens seen) the points are those, each at the first exam by which a model had seen so many. An exam
    stands for one dose, the largest: a task vector, which is asked at the end alone, has no points on the way.

    Seeds, and copies of isolated arms, may stop at different steps. A point stands only where each was asked or had
    already ended; one that ended keeps its last answers, because its model no longer changed. Seeds that failed are
    left out as long as any finished; when none did, the curve goes as far as they came.
    """
    rows = answers.arm(arm)
    if rows.empty:
        return {}
    require_columns(rows, ["editor", "phase", "step", *QUESTION], "table of answers")
    later = rows[rows["phase"].isin(["tuning", "tuned"])]
    finished = set(later.loc[later["phase"] == "tuned", "seed"])
    later = later[later["seed"].isin(finished)] if finished else later
    # The last point of a curve and the exam at the end may fall on one step; written last, the exam at the end is kept.
    later = later.sort_values("phase", key=lambda phase: phase == "tuned", kind="stable")
    later = later.drop_duplicates([*QUESTION, "step"], keep="last")
    later = _at_doses(later, doses) if doses else later
    curves: dict[str, Curve] = {}
    for rate in rates("curves"):
        if not rate.applies(is_control(rows)) or rate.hit != "tuned":
            continue
        outcome = answers.outcomes(arm, rate.criterion)
        outcome = outcome[outcome.index.get_level_values("seed").isin(later["seed"])]
        asked = outcome["before"].notna() if rate.among is None else outcome[rate.among] == 1
        own = later[(later["fact_set"] == rate.fact_set) & (later["kind"] == rate.kind)]
        found = {
            step: answers.replicates.estimate_of((arm, rate.name), count)
            for step, count in _counts(own, asked, rate, bool(finished))
        }
        points = {step: point for step, point in found.items() if point.value is not None}
        if points:
            start = answers.replicates.estimate_of((arm, rate.name), counts(outcome, replace(rate, hit="before")))
            curves[rate.series or rate.name] = {0: Estimate(1.0) if rate.among == "before" else start, **points}
    return curves


def _at_doses(rows: pd.DataFrame, doses: Sequence[int]) -> pd.DataFrame:
    """The rows of the exams that stand for doses, which take the place of steps. A model whose run ended before a dose
    is as it was at its end."""
    require_columns(rows, ["tokens"], "table of answers")
    exams = rows[[*MODEL, "phase", "step", "tokens"]].drop_duplicates()
    ends = exams[exams["phase"] == "tuned"].groupby(MODEL)["step"].max()
    first = [exams[exams["tokens"] >= dose].groupby(MODEL)["step"].min() for dose in doses]
    parts = []
    for dose, reached, larger in zip(doses, first, [*first[1:], None], strict=True):
        chosen = reached.combine_first(ends).astype("int64")
        if larger is not None:
            chosen = chosen[chosen != larger.reindex(chosen.index)]
        parts.append(rows.merge(chosen.reset_index(), on=[*MODEL, "step"]).assign(step=dose))
    return pd.concat(parts, ignore_index=True)


def _counts(
    rows: pd.DataFrame, asked_about: pd.Series[bool], rate: Rate, finished: bool
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Hits and asked per model and fact, at each step after 0 at which every model was asked or had ended; ``finished``
    says whether the seeds came to their end."""
    if rows.empty:
        return
    successes = rows[rate.criterion].astype("Float64").fillna(0.0).astype("float64")
    wide = rows.assign(success=successes).set_index([*QUESTION, "step"])["success"].unstack("step").sort_index(axis=1)
    known = asked_about.reindex(wide.index, fill_value=False).to_numpy()
    # Each copy of an isolated arm is a model of its own, which may stop at a step of its own.
    asked_at = wide.notna().groupby(level=MODEL, sort=True).transform("any").to_numpy()
    values = wide.to_numpy()
    last = asked_at.shape[1] - 1 - asked_at[:, ::-1].argmax(axis=1)
    for place, step in enumerate(wide.columns.astype("int64").to_list()):
        ended = (last < place) & finished
        if step == 0 or not (asked_at[:, place] | ended).all():
            continue
        here = values[np.arange(len(values)), np.where(asked_at[:, place], place, last)]
        asked = known & ~np.isnan(here)
        table = pd.DataFrame({"hits": asked & (here == 1), "asked": asked}, index=wide.index).astype("int64")
        yield step, table.groupby(level=[*MODEL, "fact_id"], observed=True).sum()
