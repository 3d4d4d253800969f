"""Intervals of a rate: they cover the truth as often as they say, at the width that theory gives."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta

from indelible.numbers.bootstrap import Contrast, Sample, rate_interval
from indelible.numbers.estimate import Estimate
from indelible.numbers.words import percent_with_interval

Pairs = NDArray[np.int64]


def sample(*seeds: Pairs) -> Sample:
    """Of seeds in which row i is one fact."""
    table = np.stack(seeds).astype(np.float64)
    return Sample(table[..., 0], table[..., 1], "facts")


def apart(*seeds: Pairs) -> Sample:
    """Of seeds that share no fact."""
    return sample(*(np.concatenate([pairs * (other is pairs) for other in seeds]) for pairs in seeds))


def fixed(hits: int, asked: int, facts: int) -> Pairs:
    table = np.zeros((facts, 2), dtype=np.int64)
    table[:asked, 1] = 1
    table[:hits, 0] = 1
    return table


def test_the_width_is_that_of_the_binomial_and_of_seeds() -> None:
    generator = np.random.default_rng(0)
    one = rate_interval(sample(fixed(240, 400, 400)), draws=20_000, generator=generator)
    assert one is not None
    half_width = 1.96 * np.sqrt(0.6 * 0.4 / 400)
    assert one == pytest.approx((0.6 - half_width, 0.6 + half_width), abs=0.004)


@pytest.mark.parametrize("seeds", [2, 4])
def test_seeds_alone_widen_by_the_variance_of_their_mean_estimated_by_its_median(seeds: int) -> None:
    """Facts without noise inside a seed. Reference: medians of the chi-squared distribution out of tables."""
    shares = np.array([0.4, 0.5] * (seeds // 2))
    tables = [np.tile([[share * 10, 10]], (50, 1)).astype(np.int64) for share in shares]
    several = rate_interval(sample(*tables), draws=20_000, generator=np.random.default_rng(0))
    assert several is not None
    squares = ((shares - 0.45) ** 2).sum()
    half_width = 1.96 * np.sqrt(squares / {2: 0.4549, 4: 2.3660}[seeds] / seeds)
    assert several == pytest.approx((0.45 - half_width, 0.45 + half_width), abs=0.002)


def test_seeds_that_agree_in_all_their_facts_have_an_interval() -> None:
    """Three of ten kept in both: what facts explain is nothing but rounding, and nothing is to be divided by it."""
    together = rate_interval(sample(fixed(3, 10, 10), fixed(3, 10, 10)), draws=500, generator=np.random.default_rng(0))
    assert together is not None and 0 < together[0] < 0.3 < together[1] < 1


def test_seeds_that_agree_more_than_their_facts_explain_add_nothing() -> None:
    alike = [fixed(30, 50, 50) for _ in range(3)]
    generator = np.random.default_rng(0)
    together = rate_interval(apart(*alike), draws=20_000, generator=generator)
    pooled = rate_interval(sample(fixed(90, 150, 150)), draws=20_000, generator=generator)
    assert together is not None and pooled is not None
    assert together == pytest.approx(pooled, abs=0.005)


def test_facts_that_all_seeds_share_are_not_counted_thrice() -> None:
    one_seed = fixed(30, 50, 50)
    generator = np.random.default_rng(0)
    shared = rate_interval(sample(one_seed, one_seed, one_seed), draws=20_000, generator=generator)
    one = rate_interval(sample(one_seed), draws=20_000, generator=generator)
    assert shared is not None and one is not None
    assert shared == pytest.approx(one, abs=0.005)


@pytest.mark.parametrize(("hits", "asked"), [(24, 24), (0, 24), (23, 24), (12, 20), (2, 3)])
def test_a_share_of_independent_facts_has_the_interval_of_jeffreys(hits: int, asked: int) -> None:
    """Reference: quantiles of the Beta(hits + ½, misses + ½) distribution."""
    found = rate_interval(sample(fixed(hits, asked, 30)), draws=100_000, generator=np.random.default_rng(1))
    assert found is not None
    expected = beta.ppf([0.025, 0.975], hits + 0.5, asked - hits + 0.5)
    assert found == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("wordings", [1, 3])
@pytest.mark.parametrize("facts", [2, 8, 200])
def test_the_interval_of_all_ends_at_all_and_that_of_none_begins_at_none(facts: int, wordings: int) -> None:
    every = np.full((facts, 2), wordings, np.int64)
    none = every * [0, 1]
    of_all, of_none = (
        rate_interval(sample(one, one), draws=2_000, generator=np.random.default_rng(0)) for one in (every, none)
    )
    assert of_all is not None and of_none is not None
    assert of_all[1] == 1.0 and of_all[0] < 1
    assert of_none[0] == 0.0 and of_none[1] > 0
    assert percent_with_interval(1.0, *of_all).endswith(", 100%]")


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (-0.1, 1.0), (0.1, 2 / 1001), (0.3, 2 / 1001)])
def test_an_interval_has_its_value_in_it(value: float, p: float) -> None:
    found = Contrast(value, np.linspace(0.05, 0.2, 1000))
    assert found.interval[0] <= value <= found.interval[1]
    assert found.p == pytest.approx(p)
    assert (found.p <= 0.05) is (found.interval[0] > 0)


def test_facts_are_drawn_whole() -> None:
    """With several wordings per fact: the interval is near that of drawing facts one by one with replacement."""
    generator = np.random.default_rng(5)
    facts = np.repeat([[0, 2], [0, 1], [1, 1], [1, 1], [2, 3], [0, 2], [3, 3], [1, 2]], 8, axis=0).astype(np.int64)
    interval = rate_interval(sample(facts), draws=20_000, generator=generator)
    assert interval is not None
    totals = facts[generator.integers(len(facts), size=(20_000, len(facts)))].sum(axis=1)
    one_by_one = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    assert interval == pytest.approx(one_by_one, abs=0.015)


def test_the_order_of_facts_does_not_matter_and_a_seed_repeats() -> None:
    generator = np.random.default_rng(0)
    study = [np.stack([generator.binomial(1, 0.7, 50), np.ones(50, np.int64)], axis=1) for _ in range(2)]
    order = generator.permutation(50)
    shuffled = [pairs[order] for pairs in reversed(study)]
    first, again, second, other = (
        rate_interval(sample(*facts), draws=20_000, generator=np.random.default_rng(seed))
        for facts, seed in ((study, 7), (study, 7), (shuffled, 7), (study, 8))
    )
    assert first == again != other
    assert first is not None and second is not None
    assert first == pytest.approx(second, abs=0.005)


def test_without_two_facts_there_is_no_interval() -> None:
    generator = np.random.default_rng(0)
    for few in (np.zeros((0, 2), dtype=np.int64), fixed(0, 0, 24), fixed(1, 1, 24)):
        assert rate_interval(sample(few), draws=100, generator=generator) is None
    assert rate_interval(sample(fixed(2, 2, 24)), draws=100, generator=generator) is not None


@pytest.mark.parametrize(
    ("low", "high", "side"), [(0.1, 0.2, 1), (-0.2, -0.1, -1), (-0.1, 0.1, 0), (0, 0, 0), (None, None, 0)]
)
def test_the_side_of_zero(low: float | None, high: float | None, side: int) -> None:
    assert Estimate(0.0, low, high).side == side
