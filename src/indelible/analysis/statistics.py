"""How far a rate could move with other facts and other seeds: percentile bootstrap intervals.

A rate is hits over asked, summed over facts and seeds. One draw of the bootstrap (Efron, 1979; two levels after Davison
& Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8) picks seeds with replacement, then, within each
picked seed, facts with replacement, and forms the ratio of the two new sums. A fact is redrawn whole, with all its
wordings, because wordings of one fact are not independent. With one seed only facts are redrawn, and the interval then
says nothing about other seeds.

Facts with equal (hits, asked) are interchangeable, so a draw of n facts is a multinomial draw over the few kinds of
pairs there are: the same distribution as drawing facts one by one, at a cost that does not grow with their number. The
result therefore cannot depend on the order of facts either.

Limits that a reader should know. Where every fact survives, or none, no draw differs from another and the interval has
no width; that is the bootstrap's blindness, not certainty. Near those ends it is too narrow too: in simulated studies
with 24 edits, nine of ten retained, it covered the truth in 90% of them, and with 6 of ten in 94%. With few seeds,
drawing at both levels is conservative when seeds agree (98% with three) and too narrow when they differ much. Facts
that several seeds share are counted as different facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LARGEST_EMPTY_SHARE = 0.05
"""With more empty draws than this, no 95% interval is given."""

Pairs = NDArray[np.int64]
"""(facts, 2): hits and asked of each fact of one seed."""


@dataclass(frozen=True)
class Interval:
    """A two-sided 95% interval, in the unit of the rate (fractions)."""

    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Whether zero lies strictly outside."""
        return self.low > 0 or self.high < 0


def by_seed(count: pd.DataFrame) -> dict[int, Pairs]:
    """Counts per fact (frame indexed by seed, fact_id with hits and asked) as one array of pairs per seed."""
    return {
        int(str(seed)): part[["hits", "asked"]].to_numpy(dtype=np.int64)
        for seed, part in count.groupby(level="seed", sort=True)
    }


def rate_interval(facts: Mapping[int, Pairs], *, draws: int, generator: np.random.Generator) -> Interval | None:
    """95% percentile interval of a rate, by bootstrap over seeds and facts within seeds.

    Args:
        facts: seed -> (facts, 2) array of hits and asked per fact.
        draws: number of bootstrap draws, 1 or more.
        generator: the source of randomness.

    Returns:
        The interval, or None when there is nothing to draw from or when more than 5% of the draws have nothing in the
        denominator (a draw without any fact that had succeeded has no rate). Fewer empty draws are left out.
    """
    seeds = sorted(facts)
    if not seeds:
        return None
    picked = generator.integers(len(seeds), size=(draws, len(seeds)))
    return _percentiles(_rates([facts[seed] for seed in seeds], picked, generator))


def gap_interval(
    minuend: Mapping[int, Pairs], subtrahend: Mapping[int, Pairs], *, draws: int, generator: np.random.Generator
) -> Interval | None:
    """95% percentile interval of the difference of two rates measured in the same seeds.

    Both sets follow the same draw of seeds, since one seed's model answered both; within a seed their facts are drawn
    independently, since they are different facts.

    Args:
        minuend: seed -> (facts, 2) pairs of the rate that is subtracted from (intrinsic, for the retention gap).
        subtrahend: the same of the rate that is subtracted (edited).
        draws: number of bootstrap draws, 1 or more.
        generator: the source of randomness.

    Returns:
        The interval, or None as in `rate_interval`; a draw is empty when either denominator is.
    """
    seeds = sorted(set(minuend) | set(subtrahend))
    if not seeds:
        return None
    none = np.zeros((0, 2), dtype=np.int64)
    picked = generator.integers(len(seeds), size=(draws, len(seeds)))
    first = _rates([minuend.get(seed, none) for seed in seeds], picked, generator)
    second = _rates([subtrahend.get(seed, none) for seed in seeds], picked, generator)
    return _percentiles(first - second)


def _rates(facts: Sequence[Pairs], picked: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.float64]:
    """The rate in every draw, NaN where nothing was asked.

    Args:
        facts: per seed a (facts, 2) array of pairs.
        picked: (draws, seeds) positions of the seeds in each draw.
        generator: the source of randomness.
    """
    kinds, kind_of = np.unique(np.concatenate(facts), axis=0, return_inverse=True)
    if not len(kinds):
        return np.full(len(picked), np.nan)
    seed_of = np.repeat(np.arange(len(facts)), [len(pairs) for pairs in facts])
    tally = np.zeros((len(facts), len(kinds)))
    np.add.at(tally, (seed_of, kind_of.reshape(-1)), 1)
    sizes = tally.sum(axis=1)
    # A seed without facts draws none of them; its shares only have to be a valid distribution.
    shares = np.where(sizes[:, None] > 0, tally / np.maximum(sizes, 1)[:, None], 1 / len(kinds))
    drawn = generator.multinomial(sizes[picked].astype(np.int64), shares[picked])
    hits, asked = (drawn.sum(axis=1) @ kinds).T.astype(np.float64)
    rates = np.full(len(picked), np.nan)
    np.divide(hits, asked, out=rates, where=asked > 0)
    return rates


def _percentiles(rates: NDArray[np.float64]) -> Interval | None:
    defined = rates[~np.isnan(rates)]
    if len(defined) < (1 - LARGEST_EMPTY_SHARE) * len(rates):
        return None
    low, high = np.quantile(defined, [0.025, 0.975])
    return Interval(float(low), float(high))
