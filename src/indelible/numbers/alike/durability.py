"""The durability score: what was kept at equal utility, one number for an arm.

What is left at the end of tuning is left at whatever utility an arm came to: one that learned less looks durable for
that reason alone. Durability is the area under the share kept, over the held-out figure that tuning is for, within a
range that all arms reached.

*Definition.* At each exam that has a held-out figure beside it (as signed that up is better) both are known; from one
exam to the next both go straight. R(u) is the share kept when the figure u was first reached, of what had succeeded
before tuning, where it is 1. Where the figure turns back, nothing more is reached; what is lost meanwhile counts from
the next new best on. Durability is the mean of R over u, in the range from the best of the starts (the edited models,
not tuned yet) to the least of the bests of one seed's models in a family. A *family* is what was tuned alike: by one
objective, tuner and settings, under one protocol; editors, paraphrases, masks and protections may differ.

*Range and unit.* A share, from 0 to 1: 1 where nothing was lost on the way. As R begins with 1, fewer exams put it
higher: with exams at start and end alone it is a trapezoid of two points, half of 1 and half of what was kept at the
end of the range, and never below one half; as most is often lost early, that is more than what finer exams would say.
Held-out wordings are asked at both ends alone. So scores are compared within one seed's family: its members have alike
points, or no score (a model without any on the way, beside others that had some by then), and another arm may shorten
the range for all.

*Undefined* where nothing became better; for a model that came less than half as far (`LEAST_REACHED`) as the farthest
of its family, which else would decide over how little all are compared; for controls; and without figures, as of older
runs. On the way to weights that a protection changed when training was over there are none (``tables.collect_runs``).

*Interval.* R is straight between exams, so that durability is a weighted mean of what the exams found, and the weights
are made of held-out figures alone. Each question has a durability of its own: the share of the range in which it
succeeded, of sorts. An arm's is their mean, a rate whose hits are fractions, drawn with the same facts and seeds as
every other (`replicates`). Held-out figures are taken as they are: what other held-out rows would have said is in no
interval; arms of one seed share these rows. In 300 simulated studies per design of 24 edits a seed, asked at three
exams or at the end alone, intervals of one, two or three seeds that agree covered scores of 0.57 to 0.84 in 96 to 98%
and differences between arms in 96 to 99%; those of three seeds among which the speed of forgetting varies by 30%,
93 to 94%. ``tests/numbers/test_durability.py`` repeats a part of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indelible.numbers.measures import CONTROL_EDITOR, QUESTION, Rate, require_columns

LEAST_REACHED = 0.5
"""Of the way that the farthest model of a family came: who came less far has no score, and shortens no range."""
TUNED_ALIKE = ("objective", "tuner", "tuning", "protocol", "figure")
"""Columns of the run table in which a family agrees."""
MODEL = ["arm", "seed", "copy"]
WORDS = ("fact_set", "fact_id", "kind")

Weights = Mapping[str, Mapping[tuple[int, int], Mapping[int, float]]]
"""Arm -> seed and copy of a model that has a score -> step -> weight of the exam then; they sum to 1."""


def weights_of(rows: pd.DataFrame, runs: pd.DataFrame, rate: Rate) -> Weights:
    """The weights of all exams that asked what a rate asks about, from tidy rows and the run table; none where that
    has no column ``figures`` (JSON: copy -> step -> figure)."""
    found: dict[str, dict[tuple[int, int], dict[int, float]]] = {}
    if rows.empty or "figures" not in runs:
        return found
    require_columns(rows, [*MODEL, "phase", "step", "fact_set", "kind"], "table of answers")
    asked = rows[(rows["fact_set"] == rate.fact_set) & (rows["kind"] == rate.kind)]
    exams = asked.loc[asked["phase"].isin(["tuning", "tuned"]), [*MODEL, "step"]].drop_duplicates()
    utilities = pd.DataFrame(_utilities(runs), columns=[*MODEL, "step", "utility", "family"])
    # The start of what was never asked afterwards leads nowhere.
    starts = utilities[utilities["step"] == 0].merge(exams[MODEL].drop_duplicates(), on=MODEL)
    points = pd.concat([starts, utilities[utilities["step"] > 0].merge(exams, on=[*MODEL, "step"])])
    for _, family in points.groupby(["family", "seed"], sort=False):
        models = [path.sort_values("step") for _, path in family.groupby(MODEL, sort=False)]
        of_models = _alike([(path["step"].tolist(), path["utility"].to_numpy()) for path in models])
        for path, weights in zip(models, of_models, strict=True):
            if weights:
                first = path.iloc[0]
                found.setdefault(str(first["arm"]), {})[int(first["seed"]), int(first["copy"])] = weights
    return found


def _utilities(runs: pd.DataFrame) -> Iterator[tuple[str, int, int, int, float, str]]:
    """Every held-out figure of an arm that edits, up is better, by model and step, and the family."""
    for line in runs.to_dict("records"):
        if line["editor"] == CONTROL_EDITOR or not isinstance(line["figures"], str):
            continue
        family = json.dumps([str(line.get(name)) for name in TUNED_ALIKE])
        sign = -1.0 if line["better"] == "lower" else 1.0
        for copy, figures in json.loads(line["figures"]).items():
            for step, figure in figures.items():
                yield str(line["arm"]), int(line["seed"]), int(copy), int(step), sign * figure, family


def _alike(paths: Sequence[tuple[list[int], NDArray[np.float64]]]) -> list[dict[int, float]]:
    """The weights of each path of one family and seed, by step; none for one without a score."""
    first = min((steps[1] for steps, _ in paths if len(steps) > 2), default=None)
    fine = [len(steps) > 2 or (len(steps) == 2 and (first is None or steps[1] <= first)) for steps, _ in paths]
    start = max(utility[0] for _, utility in paths)
    reached = [utility.max() - start if good else -np.inf for (_, utility), good in zip(paths, fine, strict=True)]
    farthest = max(reached)
    if farthest <= 0:
        return [{} for _ in paths]
    scored = [one >= LEAST_REACHED * farthest for one in reached]
    end = start + min(one for one, has in zip(reached, scored, strict=True) if has)
    return [
        dict(zip(steps, passage_weights(utility, start, end).tolist(), strict=True)) if has else {}
        for (steps, utility), has in zip(paths, scored, strict=True)
    ]


def passage_weights(utility: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    """(points,): the weights that make of the shares kept at some points their mean over the figures from ``start`` to
    ``end``, each at its first passage along a way that is straight from point to point.

    Args:
        utility: (points,) in the order of time; the first is at most ``start``, the greatest at least ``end``.
    """
    weights, best = np.zeros(len(utility)), start
    for place, (here, there) in enumerate(pairwise(utility)):
        if there <= best:
            continue
        at = np.array([best, min(there, end)])
        late = float(np.diff(((at - here) / (there - here)) ** 2)[0]) / 2 * (there - here)
        weights[place : place + 2] += float(np.diff(at)[0]) - late, late
        best = at[1]
        if best >= end:
            break
    return weights / (end - start)


def passed(
    rows: pd.DataFrame, outcome: pd.DataFrame, rate: Rate, weights: Mapping[tuple[int, int], Mapping[int, float]]
) -> pd.DataFrame:
    """Durability and questions asked, as of `answers.counts`, by seed, copy and fact_id: of one arm's rows, their
    `answers.outcomes`, and the weights of its models. Models without a score are left out."""
    table = [(*model, step, weight) for model, own in weights.items() for step, weight in own.items()]
    exams = pd.DataFrame(table, columns=["seed", "copy", "step", "weight"])
    asked = rows[(rows["fact_set"] == rate.fact_set) & (rows["kind"] == rate.kind)]
    # The last point on the way and the exam at the end may fall on one step; that at the end is kept.
    later = pd.concat([asked[asked["phase"] == phase] for phase in ("tuned", "tuning")])
    later = later.drop_duplicates([*QUESTION, "step"]).merge(exams, on=["seed", "copy", "step"])
    success = later[rate.criterion].astype("Float64").fillna(0.0).astype("float64")
    later = later.assign(hits=later["weight"] * success).astype(dict.fromkeys(WORDS, str))
    known = outcome.loc[rate.asks(outcome), "before"].dropna().reset_index().astype(dict.fromkeys(WORDS, str))
    starts = exams.loc[exams["step"] == 0, ["seed", "copy", "weight"]]
    found = known.merge(starts, on=["seed", "copy"]).merge(
        later.groupby(QUESTION, as_index=False)[["hits", "weight"]].sum(), on=QUESTION, suffixes=("_before", "")
    )
    found = found[np.isclose(found["weight_before"] + found["weight"], 1)]  # whoever was asked every time
    hits = (found["weight_before"] + found["hits"]) * found["before"]
    found = found.assign(hits=hits, asked=(found["before"] == 1).astype("int64"))
    summed: pd.DataFrame = found.groupby(["seed", "copy", "fact_id"])[["hits", "asked"]].sum()
    return summed
