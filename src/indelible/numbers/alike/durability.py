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
the range for all. It is told with the scores (``Passage``): those of two studies are alike where their ranges are.

*Undefined* where nothing became better; for a model that came less than half as far (`LEAST_REACHED`) as the farthest
of its family, which else would decide over how little all are compared; for one with a figure that is no number; for
controls; and without figures, as of older runs. On the way to weights that a protection changed when training was over
there are none (``tables.collect_runs``).

*Interval.* R is straight between exams, so that durability is a weighted mean of what the exams found, and the weights
are made of held-out figures alone. Each question has a durability of its own: the share of the range in which it
succeeded, of sorts. An arm's is their mean, a rate whose hits are fractions, drawn with the same facts and seeds as
every other (`replicates`). Held-out figures are taken as they are: what other held-out rows would have said is in no
interval; arms of one seed share these rows. In 300 simulated studies per design of 24 edits a seed, asked at three
exams or at the end alone, intervals of one, two or three seeds that agree covered scores of 0.57 to 0.84, and
differences between arms, in 96% and more; those of three seeds among which the speed of forgetting varies by 30%, in
93% and more. ``tests/numbers/test_durability.py`` repeats a part of it.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Passage:
    """A model's way through its family's range: the weight of the exam at each step, which sum to 1, and the held-out
    figures that the range is from and to."""

    weights: Mapping[int, float]
    start: float
    end: float


Passages = Mapping[str, Mapping[tuple[int, int], Passage]]
"""Arm -> seed and copy of a model that has a score -> its way."""


def passages(rows: pd.DataFrame, runs: pd.DataFrame, rate: Rate) -> Passages:
    """The ways of all models, by the exams that asked what a rate asks about, from tidy rows and the run table; none
    where that has no column ``figures`` (JSON: copy -> step -> figure)."""
    found: dict[str, dict[tuple[int, int], Passage]] = {}
    if rows.empty or "figures" not in runs:
        return found
    require_columns(rows, [*MODEL, "phase", "step", "fact_set", "kind"], "table of answers")
    asked = (rows["fact_set"] == rate.fact_set) & (rows["kind"] == rate.kind)
    exams = rows.loc[asked & rows["phase"].isin(["tuning", "tuned"]), [*MODEL, "step"]].drop_duplicates()
    utilities = pd.DataFrame(_utilities(runs), columns=[*MODEL, "step", "utility", "sign", "family"])
    # The start of what was never asked afterwards leads nowhere.
    starts = utilities[utilities["step"] == 0].merge(exams[MODEL].drop_duplicates(), on=MODEL)
    points = pd.concat([starts, utilities[utilities["step"] > 0].merge(exams, on=[*MODEL, "step"])])
    for _, family in points.groupby(["family", "seed"], sort=False):
        models = [path.sort_values("step") for _, path in family.groupby(MODEL, sort=False, observed=True)]
        if broken := [path for path in models if not np.isfinite(path["utility"]).all()]:
            named = ", ".join(sorted({str(path["arm"].iloc[0]) for path in broken}))
            warnings.warn(f"No durability of {named}: a held-out figure is no number.", RuntimeWarning, stacklevel=2)
            models = [path for path in models if not any(path is one for one in broken)]
        start, end, scored = _range([path["utility"].to_numpy() for path in models], [path["step"] for path in models])
        for path in (path for path, has in zip(models, scored, strict=True) if has):
            first, sign = path.iloc[0], path["sign"].iloc[0]
            weights = passage_weights(path["utility"].to_numpy(), start, end).tolist()
            passage = Passage(dict(zip(path["step"].tolist(), weights, strict=True)), sign * start, sign * end)
            found.setdefault(str(first["arm"]), {})[int(first["seed"]), int(first["copy"])] = passage
    return found


def _utilities(runs: pd.DataFrame) -> Iterator[tuple[str, int, int, int, float, float, str]]:
    """Every held-out figure of an arm that edits, by model and step, with the sign by which up is better, and the
    family."""
    for line in runs.to_dict("records"):
        if line["editor"] == CONTROL_EDITOR or not isinstance(line["figures"], str):
            continue
        family = json.dumps([str(line.get(name)) for name in TUNED_ALIKE])
        sign = -1.0 if line["better"] == "lower" else 1.0
        for copy, figures in json.loads(line["figures"]).items():
            for step, figure in figures.items():
                yield str(line["arm"]), int(line["seed"]), int(copy), int(step), sign * figure, sign, family


def _range(
    utilities: Sequence[NDArray[np.float64]], steps: Sequence[pd.Series[int]]
) -> tuple[float, float, list[bool]]:
    """Where the range of one family and seed starts and ends, and which of its models have a score."""
    if not utilities:
        return 0.0, 0.0, []
    first = min((own.iloc[1] for own in steps if len(own) > 2), default=None)
    fine = [len(own) > 2 or (len(own) == 2 and (first is None or own.iloc[1] <= first)) for own in steps]
    start = max(float(utility[0]) for utility in utilities)
    reached = [float(utility.max()) - start if good else -np.inf for utility, good in zip(utilities, fine, strict=True)]
    farthest = max(reached)
    scored = [farthest > 0 and one >= LEAST_REACHED * farthest for one in reached]
    return start, start + min((one for one, has in zip(reached, scored, strict=True) if has), default=0.0), scored


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
    rows: pd.DataFrame, outcome: pd.DataFrame, rate: Rate, of_models: Mapping[tuple[int, int], Passage]
) -> pd.DataFrame:
    """Durability and questions asked, as of `answers.counts`, by seed, copy and fact_id: of one arm's rows, their
    `answers.outcomes`, and the ways of its models. Models without a score are left out."""
    table = [(*model, *point) for model, passage in of_models.items() for point in passage.weights.items()]
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
