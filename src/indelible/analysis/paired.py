"""Whether two arms differ on the same facts: exact tests that compare each fact with itself.

Arms of a study share their facts, so that a difference between arms is best seen where both arms answered one question
differently. With one question per fact that is McNemar's exact test (1947): of the questions answered differently, the
number that favour one arm is binomial with ½ if the arms are alike. Where a fact is asked several times, in several
wordings or by several seeds, its answers hang together, and the test becomes one of permutation: all answers of a fact
change arms together, or none do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from indelible.analysis.metrics import MEASURES, QUESTION, Measure, applies, outcomes

Question = tuple[Hashable, ...]
"""What tells a question of an arm from another, in the order of `metrics.QUESTION`."""
Hits = Mapping[Question, int]

PERMUTATIONS = 10_000
_SET, _FACT = QUESTION.index("fact_set"), QUESTION.index("fact_id")
_ONCE = 1_000


@dataclass(frozen=True)
class PairedTest:
    """What a paired comparison says.

    Attributes:
        p: two-sided; None where no question can be compared.
        test: "McNemar, exact" or "permutation of facts"; empty where there is no p.
        discordant_for: questions that only the first arm answered.
        discordant_against: questions that only the second arm answered.
        facts: facts compared, each counted once over wordings and seeds.
    """

    p: float | None
    test: str
    discordant_for: int
    discordant_against: int
    facts: int


def paired_test(
    rows: pd.DataFrame, arm_a: str, arm_b: str, measure: str, *, generator: np.random.Generator
) -> PairedTest:
    """Compare a rate between two arms over the questions that are in the denominator of both.

    For retention these are the questions that had succeeded before tuning in both arms: the test then asks whether the
    same knowledge fared differently.

    Args:
        rows: tidy rows of the study.
        arm_a: name of the first arm.
        arm_b: name of the second arm.
        measure: key of `metrics.MEASURES`.
        generator: the source of randomness of the permutations.
    """
    first, second = (hits(rows[rows["arm"] == arm], measure) for arm in (arm_a, arm_b))
    return compare(first, second, generator=generator)


def compare(first: Hits, second: Hits, *, generator: np.random.Generator) -> PairedTest:
    """The paired test of two arms whose `hits` are known, as `paired_test` makes it."""
    differences: Counter[Hashable] = Counter()
    better = worse = 0
    both = first.keys() & second.keys()
    for question in both:
        difference = first[question] - second[question]
        differences[_fact(question)] += difference
        better += difference > 0
        worse += difference < 0
    if not both:
        return PairedTest(None, "", 0, 0, 0)
    if len(differences) == len(both):
        p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
        return PairedTest(p, "McNemar, exact", better, worse, len(differences))
    # The order of a set is not the same in every run, and each sum is drawn with signs of its own.
    nonzero = np.array(sorted(sum_ for sum_ in differences.values() if sum_), dtype=np.int64)
    p = _permutation_p(nonzero, generator)
    return PairedTest(p, "permutation of facts", better, worse, len(differences))


def hits(rows: pd.DataFrame, name: str) -> Hits:
    """Whether each question in a rate's denominator was a hit.

    Args:
        rows: tidy rows of one arm.
        name: key of `metrics.MEASURES`.

    Returns:
        1 or 0 by question; empty where the measure doesn't apply to the arm.
    """
    if not applies(MEASURES[name], rows):
        return {}
    return hits_among(outcomes(rows, MEASURES[name].criterion), MEASURES[name])


def hits_among(outcome: pd.DataFrame, measure: Measure) -> Hits:
    """The same from what `metrics.outcomes` returned for the arm, with the measure's own criterion."""
    levels = outcome.index
    asked = (
        (levels.get_level_values("fact_set") == measure.fact_set)
        & (levels.get_level_values("kind") == measure.kind)
        & outcome[measure.hit].notna()
    )
    if measure.among is not None:
        asked &= outcome[measure.among] == 1
    chosen = outcome.loc[asked, measure.hit]
    return dict(zip(chosen.index.to_list(), chosen.astype("int64").to_list(), strict=True))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979) of a family of tests; None stays None and is not part of the family."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min((len(known) - rank) * p, 1.0))
        adjusted[place] = largest
    return adjusted


def _fact(question: Question) -> Hashable:
    return question[_SET], question[_FACT]


def _permutation_p(differences: NDArray[np.int64], generator: np.random.Generator) -> float:
    """Two-sided p of a sum whose terms could each have had the other sign.

    All sums are counted where they are no more than the permutations that would be drawn.
    """
    observed = abs(int(differences.sum()))
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
