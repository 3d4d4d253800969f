"""Was the forecast right? What mixtures say of a freeze mask before it is tried, beside what a run with it then kept.

A forecast (`shares.mask_forecast`) comes from one run without a mask. Where the same study also has the arm with that
mask and all else equal, its measured gain in edited retention stands beside the forecast one.
"""

from __future__ import annotations

import pandas as pd

from indelible.numbers.answers import Answers
from indelible.numbers.arms import arms_of, comparable
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES

OUTCOME_COLUMNS = ("tried_in", "measured_gain", "measured_low", "measured_high")


def with_outcomes(forecast: pd.DataFrame, answers: Answers, runs: pd.DataFrame) -> pd.DataFrame:
    """A `shares.mask_forecast` with what came of the masks that the study tried: ``tried_in`` (the arm with that mask
    and all else equal), ``measured_gain`` (its edited retention less that of the arm that was forecast from, a
    fraction) and its paired 95% interval ``measured_low`` to ``measured_high``; missing where the mask was not tried.
    """
    arms = {arm.name: arm for arm in arms_of(runs)}
    tried = {
        (arm.name, str(other.factors["mask"])): other.name
        for arm in arms.values()
        for other in arms.values()
        if arm.factors["mask"] == "none" and comparable(other, arm, "mask")
    }
    kept = MEASURES.get("retention_edited")
    lines = []
    for arm, mask in zip(forecast["arm"].astype(str), forecast["mask"], strict=True):
        other = tried.get((arm, mask))
        gain = answers.replicates.estimate(kept.of(other) | kept.of(arm, -1.0)) if other else Estimate()
        lines.append((other, gain.value, gain.low, gain.high))
    outcomes = pd.DataFrame(lines, columns=list(OUTCOME_COLUMNS), index=forecast.index)
    return pd.concat([forecast, outcomes.astype(dict.fromkeys(OUTCOME_COLUMNS[1:], float))], axis=1)
