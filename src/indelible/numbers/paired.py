"""Whether two arms differ on the same facts: exact tests that compare each fact with itself.

Arms of a study share their facts, so that a difference between arms is best seen where both arms answered one question
differently. With one question per fact that is McNemar's exact test (1947): of the questions answered differently, the
number that favour one arm is binomial with ½ if the arms are alike. Where a fact is asked several times, in several
wordings or by several seeds, its answers hang together, and the test becomes one of permutation: all answers of a fact
change arms together, or none do.

Each of these tests takes the tuned models as given: it says whether they differ, not whether tuning anew, with another
seed, would make the same difference. The bootstrap knows about seeds, as far as there are several, so that what is
reported is the larger of both p, which is at most 0.05 only where the interval excludes zero. Of 600 simulated
comparisons of arms alike, with 48 edits in each of 3 seeds and a standard deviation of 0.06 between runs, the paired
test called 16% significant at 5%, and the larger p at most 8.5% (from three seeds it is hard to see how far seeds
vary); where runs did not vary, 4% and 3%.

In an isolated arm all models that knew an intrinsic fact before tuning answer it: its share of hits is then what is
compared, for that is what the arm's rate counts; and the test is one of permutation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from indelible.numbers.measures import QUESTION, Rate

ASKED = [name for name in QUESTION if name != "copy"]
"""What tells a question from another where it does not matter which model of an isolated arm answers it."""
PERMUTATIONS = 10_000
_ONCE = 1_000
_ROUNDING = 1e-9
"""Sums of shares that differ by less are the same."""


def compare(
    first: pd.DataFrame, second: pd.DataFrame, *, bootstrap: float | None = None, generator: np.random.Generator
) -> tuple[float | None, str]:
    """Compare a rate between two arms over the questions that are in the denominator of both (`hits_among`).

    For retention these are the questions that had succeeded before tuning in both arms: the test then asks whether the
    same knowledge fared differently. ``bootstrap`` is the two-sided p of the same difference that knows that runs vary;
    without it the p is the test's own.

    Returns:
        The two-sided p, None where no question can be compared, and the test that it is of: "McNemar, exact" or
        "permutation of facts", which take the facts as given, or "larger of" one of them "and bootstrap".
    """
    both = first.join(second, how="inner", rsuffix="_other")
    if both.empty:
        return None, ""
    differences = both["hits"] / both["asked"] - both["hits_other"] / both["asked_other"]
    by_fact = differences.groupby(level=["fact_set", "fact_id"], observed=True).sum().to_numpy()
    if len(by_fact) == len(both) and (both[["asked", "asked_other"]] == 1).all(axis=None):
        better, worse = int((by_fact > 0).sum()), int((by_fact < 0).sum())
        p, test = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0, "McNemar, exact"
    else:
        # The order of rows must not matter, and each sum is drawn with signs of its own.
        p = _permutation_p(np.sort(by_fact[np.abs(by_fact) > _ROUNDING]), generator)
        test = "permutation of facts"
    return (p, test) if bootstrap is None else (max(p, bootstrap), f"larger of {test}, and bootstrap")


def hits_among(outcome: pd.DataFrame, rate: Rate) -> pd.DataFrame:
    """How often each question in a rate's denominator was a hit, and asked (1 but for isolated arms), of one arm's
    `answers.outcomes` by the rate's own criterion."""
    asked = rate.asks(outcome)
    if rate.among is not None:
        asked &= outcome[rate.among] == 1
    chosen = outcome.loc[asked, rate.hit].astype("int64")
    counted: pd.DataFrame = chosen.groupby(level=ASKED, observed=True).agg(hits="sum", asked="size")
    return counted


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) of a family of tests; None stays None and is not part of the family."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min((len(known) - rank) * p, 1.0))
        adjusted[place] = largest
    return adjusted


def _permutation_p(differences: NDArray[np.float64], generator: np.random.Generator) -> float:
    """Two-sided p of a sum whose terms could each have had the other sign; exact where there are few enough sums."""
    observed = abs(float(differences.sum())) - _ROUNDING
    facts = len(differences)
    if facts == 0:
        return 1.0
    if 2**facts <= PERMUTATIONS:
        signs = 1 - 2 * ((np.arange(2**facts)[:, None] >> np.arange(facts)) & 1)
        return float(np.mean(np.abs(signs @ differences) >= observed))
    extreme = 0
    for _ in range(PERMUTATIONS // _ONCE):
        signs = generator.integers(0, 2, size=(_ONCE, facts)) * 2 - 1
        extreme += int(np.sum(np.abs(signs @ differences) >= observed))
    return (extreme + 1) / (PERMUTATIONS + 1)
