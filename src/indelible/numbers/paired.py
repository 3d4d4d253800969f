"""Whether two arms differ on the same facts: exact tests that compare each fact with itself.

Arms of a study share their facts, so that a difference between arms is best seen where both arms answered one question
differently. With one question per fact that is McNemar's exact test (1947): of the questions answered differently, the
number that favour one arm is binomial with ½ if the arms are alike. Where a fact is asked several times, in several
wordings or by several seeds, its answers hang together, and the test becomes one of permutation: all answers of a fact
change arms together, or none do.

Each of these tests takes the tuned models as given: it says whether they differ, not whether tuning anew, with another
seed, would make the same difference. The bootstrap knows about seeds, as far as there are several, so that what is
reported is the larger of both p (`with_bootstrap`), which is at most 0.05 only where the interval excludes zero. Of 600
simulated comparisons of arms alike, with 48 edits in each of 3 seeds and a standard deviation of 0.06 between runs, the
paired test called 16% significant at 5%, and the larger p 8.5% (from three seeds it is hard to see how far seeds vary);
where runs did not vary, 4% and 3%.

An isolated arm has one model per edit, which all know the intrinsic facts: there a question is answered as often as
there are models that knew the answer before tuning. Its share of hits is then what is compared with the other arm, for
that is what the arm's rate counts; and the test is one of permutation.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from indelible.numbers.measures import QUESTION, Rate

ASKED = [name for name in QUESTION if name != "copy"]
"""What tells a question from another where it does not matter which model of an isolated arm answers it."""
Question = tuple[Hashable, ...]
"""In the order of `ASKED`."""
Hits = Mapping[Question, tuple[int, int]]
"""Question -> hits and times asked; (1, 1) or (0, 1) but for isolated arms."""

PERMUTATIONS = 10_000
_SET, _FACT = ASKED.index("fact_set"), ASKED.index("fact_id")
_ONCE = 1_000
_ROUNDING = 1e-9
"""Sums of shares that differ by less are the same."""


@dataclass(frozen=True)
class PairedTest:
    """What a paired comparison says.

    Attributes:
        p: two-sided; None where no question can be compared.
        test: "McNemar, exact" or "permutation of facts", which is given facts only, or "larger of" one of them "and
            bootstrap"; empty where there is no p.
        discordant_for: questions that only the first arm answered.
        discordant_against: questions that only the second arm answered.
        facts: facts compared, each counted once over wordings and seeds.
    """

    p: float | None
    test: str
    discordant_for: int
    discordant_against: int
    facts: int


def compare(first: Hits, second: Hits, *, generator: np.random.Generator) -> PairedTest:
    """Compare a rate between two arms over the questions that are in the denominator of both.

    For retention these are the questions that had succeeded before tuning in both arms: the test then asks whether the
    same knowledge fared differently.

    Args:
        first: what `hits_among` returned for the first arm.
        second: the same for the second arm and the same rate.
        generator: the source of randomness of the permutations.
    """
    differences: dict[Hashable, float] = {}
    better = worse = 0
    both = [question for question in first if question in second]
    once = all(asked == 1 for arm in (first, second) for _, asked in map(arm.__getitem__, both))
    for question in both:
        share, other = (hits / asked for hits, asked in (first[question], second[question]))
        differences[_fact(question)] = differences.get(_fact(question), 0.0) + share - other
        better += share > other
        worse += share < other
    if not both:
        return PairedTest(None, "", 0, 0, 0)
    if once and len(differences) == len(both):
        p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
        return PairedTest(p, "McNemar, exact", better, worse, len(differences))
    # The order of rows must not matter, and each sum is drawn with signs of its own.
    nonzero = np.array(sorted(sum_ for sum_ in differences.values() if abs(sum_) > _ROUNDING), dtype=np.float64)
    p = _permutation_p(nonzero, generator)
    return PairedTest(p, "permutation of facts", better, worse, len(differences))


def with_bootstrap(paired: PairedTest, bootstrap: float | None) -> PairedTest:
    """The test with the larger of its own p and that of the bootstrap, which knows that runs vary.

    Args:
        paired: what `compare` returned.
        bootstrap: two-sided p of the same difference, as in `Estimate`; with None the test stays as it is.
    """
    if paired.p is None or bootstrap is None:
        return paired
    return replace(paired, p=max(paired.p, bootstrap), test=f"larger of {paired.test}, and bootstrap")


def hits_among(outcome: pd.DataFrame, rate: Rate) -> Hits:
    """How often each question in a rate's denominator was asked, and how often it was a hit.

    Args:
        outcome: what `answers.outcomes` returned for the arm, with the rate's own criterion.
        rate: whose questions count.
    """
    asked = rate.asks(outcome)
    if rate.among is not None:
        asked &= outcome[rate.among] == 1
    chosen = outcome.loc[asked, rate.hit].astype("int64")
    counted = chosen.groupby(level=ASKED, observed=True).agg(["sum", "size"])
    pairs = zip(counted["sum"].to_list(), counted["size"].to_list(), strict=True)
    return dict(zip(counted.index.to_list(), pairs, strict=True))


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


def _permutation_p(differences: NDArray[np.float64], generator: np.random.Generator) -> float:
    """Two-sided p of a sum whose terms could each have had the other sign.

    All sums are counted where they are no more than the permutations that would be drawn.
    """
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
