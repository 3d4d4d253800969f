"""Was the forecast right? What mixtures say of a freeze mask before it is tried, beside what a run with it then kept.

A forecast (`shares.mask_forecast`) comes from one run without a mask. Where the same study also has the arm with that
mask and all else equal, its measured gain in edited retention stands beside the forecast one.
"""

from __future__ import annotations

from math import nan

import pandas as pd

from indelible.numbers.answers import Answers
from indelible.numbers.arms import arms_of, comparable
from indelible.numbers.replicates import replicate

MEASURE = "retention_edited"
OUTCOME_COLUMNS = ("tried_in", "measured_gain", "measured_low", "measured_high")


def with_outcomes(
    forecast: pd.DataFrame, rows: pd.DataFrame | Answers, runs: pd.DataFrame, *, draws: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """The forecast with what came of the masks that the study tried.

    Args:
        forecast: what `shares.mask_forecast` returned.
        rows: tidy rows of the study, or the answers made of them.
        runs: its run table.
        draws: bootstrap draws.
        seed: of the bootstrap.

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
    names = sorted({name for pair in pairs if pair in tried for name in (pair[0], tried[pair])})
    drawn = replicate(rows, names, [MEASURE], draws=draws, seed=seed)
    lines: list[tuple[str | None, float, float, float]] = []
    for pair in pairs:
        if pair not in tried:
            lines.append((None, nan, nan, nan))
            continue
        effect = drawn.effect({(tried[pair], MEASURE): 1.0, (pair[0], MEASURE): -1.0})
        low, high = (nan, nan) if effect.interval is None else (effect.interval.low, effect.interval.high)
        lines.append((tried[pair], nan if effect.value is None else effect.value, low, high))
    outcomes = pd.DataFrame(lines, columns=list(OUTCOME_COLUMNS), index=forecast.index)
    return pd.concat([forecast, outcomes], axis=1)
