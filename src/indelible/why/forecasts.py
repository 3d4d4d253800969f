"""Was the forecast right? What mixtures say of a freeze mask before it is tried, beside what a run with it then kept.

A forecast (`shares.mask_forecast`) comes from one run without a mask. Where the same study also has the arm with that
mask and all else equal, its measured gain in edited retention stands beside the forecast one.
"""

from __future__ import annotations

from math import nan

import pandas as pd

from indelible.numbers.answers import Answers
from indelible.numbers.arms import arms_of, comparable
from indelible.numbers.measures import MEASURES

OUTCOME_COLUMNS = ("tried_in", "measured_gain", "measured_low", "measured_high")


def with_outcomes(forecast: pd.DataFrame, answers: Answers, runs: pd.DataFrame) -> pd.DataFrame:
    """The forecast with what came of the masks that the study tried.

    Args:
        forecast: what `shares.mask_forecast` returned.
        answers: of the study.
        runs: its run table.

    Returns:
        The same rows with the columns ``tried_in`` (the arm with that mask and all other factors equal),
        ``measured_gain`` (its edited retention less that of the arm that was forecast from, a fraction) and its paired
        95% interval ``measured_low`` to ``measured_high``. All are missing where the mask was not tried.
    """
    arms = {arm.name: arm for arm in arms_of(runs)}
    tried = {
        (arm.name, str(other.factors["mask"])): other.name
        for arm in arms.values()
        for other in arms.values()
        if arm.factors["mask"] == "none" and comparable(other, arm, "mask")
    }
    pairs = [(str(arm), str(mask)) for arm, mask in zip(forecast["arm"], forecast["mask"], strict=True)]
    kept = MEASURES.get("retention_edited")
    lines: list[tuple[str | None, float, float, float]] = []
    for pair in pairs:
        if pair not in tried:
            lines.append((None, nan, nan, nan))
            continue
        gain = answers.replicates.estimate(kept.of(tried[pair]) | kept.of(pair[0], -1.0))
        value, low, high = (nan if end is None else end for end in (gain.value, gain.low, gain.high))
        lines.append((tried[pair], value, low, high))
    outcomes = pd.DataFrame(lines, columns=list(OUTCOME_COLUMNS), index=forecast.index)
    return pd.concat([forecast, outcomes], axis=1)
