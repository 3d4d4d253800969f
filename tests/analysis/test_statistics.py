"""Intervals: they cover the truth as often as they say, at the width that theory gives, and quickly."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import beta

from indelible.analysis.statistics import Interval, by_seed, gap_interval, mean_interval, rate_interval

Study = dict[int, NDArray[np.int64]]


def made_up(
    generator: np.random.Generator,
    retention: float,
    *,
    facts: int,
    seeds: int = 1,
    spread: float = 0.0,
    before: float = 0.9,
) -> Study:
    """Seed -> (facts, 2) hits and asked, where retention varies between seeds by ``spread``."""
    study = {}
    for seed in range(seeds):
        asked = generator.binomial(1, before, facts)
        chance = np.clip(retention + generator.normal(0, spread), 0, 1)
        study[seed] = np.stack([generator.binomial(asked, chance), asked], axis=1)
    return study


def _apart(study: Study) -> Study:
    """The same pairs for facts that no two seeds share."""
    places = list(study)
    return {
        seed: np.concatenate([study[other] * (other == seed) for other in places]).astype(np.int64) for seed in places
    }


def fixed(hits: int, asked: int, facts: int) -> NDArray[np.int64]:
    table = np.zeros((facts, 2), dtype=np.int64)
    table[:asked, 1] = 1
    table[:hits, 0] = 1
    return table


def test_the_interval_of_the_gap_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(20)
    studies, covered = 400, 0
    for _ in range(studies):
        interval = gap_interval(
            made_up(generator, 0.8, facts=100), made_up(generator, 0.6, facts=60), draws=1_000, generator=generator
        )
        assert interval is not None
        covered += interval.low <= 0.2 <= interval.high
    assert 0.93 <= covered / studies <= 0.97


def test_with_seeds_that_differ_the_interval_still_covers_the_truth() -> None:
    generator = np.random.default_rng(21)
    studies, covered = 400, 0
    for _ in range(studies):
        study = _apart(made_up(generator, 0.6, facts=40, seeds=5, spread=0.04))
        interval = rate_interval(study, draws=500, generator=generator)
        assert interval is not None
        covered += interval.low <= 0.6 <= interval.high
    assert 0.93 <= covered / studies <= 0.97


def test_the_width_is_that_of_the_binomial_and_of_seeds() -> None:
    generator = np.random.default_rng(0)
    one = rate_interval({0: fixed(240, 400, 400)}, draws=20_000, generator=generator)
    assert one is not None
    half_width = 1.96 * np.sqrt(0.6 * 0.4 / 400)
    assert (one.low, one.high) == pytest.approx((0.6 - half_width, 0.6 + half_width), abs=0.004)
    # Facts without noise inside a seed: what is left is the variance of the mean of seeds.
    shares = np.array([0.4, 0.5, 0.4, 0.5])
    seeds = {place: np.tile([[share * 10, 10]], (50, 1)).astype(np.int64) for place, share in enumerate(shares)}
    apart = mean_interval(seeds, draws=20_000, generator=generator)
    assert apart is not None
    half_width = 1.96 * shares.std(ddof=1) / np.sqrt(4)
    assert (apart.low, apart.high) == pytest.approx((0.45 - half_width, 0.45 + half_width), abs=0.002)


def test_seeds_that_agree_more_than_their_facts_explain_add_nothing() -> None:
    alike = {seed: fixed(30, 50, 50) for seed in range(3)}
    generator = np.random.default_rng(0)
    together = rate_interval(_apart(alike), draws=20_000, generator=generator)
    pooled = rate_interval({0: fixed(90, 150, 150)}, draws=20_000, generator=generator)
    assert together is not None and pooled is not None
    assert (together.low, together.high) == pytest.approx((pooled.low, pooled.high), abs=0.005)


def test_facts_that_all_seeds_share_are_not_counted_thrice() -> None:
    same = {seed: fixed(30, 50, 50) for seed in range(3)}
    generator = np.random.default_rng(0)
    shared = rate_interval(same, draws=20_000, generator=generator)
    one = rate_interval({0: fixed(30, 50, 50)}, draws=20_000, generator=generator)
    assert shared is not None and one is not None
    assert (shared.low, shared.high) == pytest.approx((one.low, one.high), abs=0.005)


@pytest.mark.parametrize(("hits", "asked"), [(24, 24), (0, 24), (23, 24), (12, 20), (2, 3)])
def test_a_share_of_independent_facts_has_the_interval_of_jeffreys(hits: int, asked: int) -> None:
    """Reference: quantiles of the Beta(hits + ½, misses + ½) distribution."""
    found = rate_interval({0: fixed(hits, asked, 30)}, draws=100_000, generator=np.random.default_rng(1))
    assert found is not None
    expected = beta.ppf([0.025, 0.975], hits + 0.5, asked - hits + 0.5)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.006)


def test_facts_are_drawn_whole() -> None:
    """With several wordings per fact: the interval is near that of drawing facts one by one with replacement."""
    generator = np.random.default_rng(5)
    facts = np.repeat([[0, 2], [0, 1], [1, 1], [1, 1], [2, 3], [0, 2], [3, 3], [1, 2]], 8, axis=0).astype(np.int64)
    interval = rate_interval({0: facts}, draws=20_000, generator=generator)
    assert interval is not None
    totals = facts[generator.integers(len(facts), size=(20_000, len(facts)))].sum(axis=1)
    one_by_one = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx(one_by_one, abs=0.015)


def test_both_sets_follow_the_same_draw_of_seeds() -> None:
    """When a seed lifts both sets alike the gap is certain but for facts; independent seeds would make it vary."""
    study = _apart({0: fixed(2, 30, 30), 1: fixed(28, 30, 30), 2: fixed(28, 30, 30)})
    generator = np.random.default_rng(0)
    gap = gap_interval(study, study, draws=5_000, generator=generator)
    alone = rate_interval(study, draws=5_000, generator=generator)
    assert gap is not None and alone is not None
    assert gap.high - gap.low < 0.5 * (alone.high - alone.low)


def test_the_order_of_facts_does_not_matter_and_a_seed_repeats() -> None:
    generator = np.random.default_rng(0)
    study = made_up(generator, 0.7, facts=50, seeds=2)
    order = generator.permutation(50)
    shuffled = {seed: study[seed][order] for seed in (1, 0)}
    first, again, second, other = (
        rate_interval(facts, draws=20_000, generator=np.random.default_rng(seed))
        for facts, seed in ((study, 7), (study, 7), (shuffled, 7), (study, 8))
    )
    assert first == again != other
    assert first is not None and second is not None
    assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=0.005)


def test_pairs_of_several_seeds_are_aligned_by_fact() -> None:
    index = pd.MultiIndex.from_tuples([(0, "b"), (0, "c"), (1, "c"), (1, "a")], names=["seed", "fact_id"])
    found = by_seed(pd.DataFrame({"hits": [1, 2, 0, 1], "asked": [1, 3, 3, 1]}, index=index))
    assert {seed: pairs.tolist() for seed, pairs in found.items()} == {
        0: [[0, 0], [1, 1], [2, 3]],
        1: [[1, 1], [0, 0], [0, 3]],
    }


def test_without_two_facts_there_is_no_interval() -> None:
    generator = np.random.default_rng(0)
    assert rate_interval({}, draws=100, generator=generator) is None
    assert rate_interval({0: np.zeros((0, 2), dtype=np.int64)}, draws=100, generator=generator) is None
    assert rate_interval({0: fixed(0, 0, 24)}, draws=100, generator=generator) is None
    assert rate_interval({0: fixed(1, 1, 24)}, draws=100, generator=generator) is None
    assert rate_interval({0: fixed(2, 2, 24)}, draws=100, generator=generator) is not None
    assert gap_interval({0: fixed(9, 9, 9)}, {0: fixed(1, 1, 24)}, draws=100, generator=generator) is None


def test_a_seed_with_only_one_of_the_sets_counts_for_that_set() -> None:
    interval = gap_interval(
        {0: fixed(20, 20, 20), 1: fixed(20, 20, 20)},
        {1: fixed(0, 20, 20), 0: fixed(0, 20, 20), 2: fixed(0, 20, 20)},
        draws=1_000,
        generator=np.random.default_rng(0),
    )
    assert interval is not None and 0.7 < interval.low < interval.high <= 1.0


@pytest.mark.parametrize(
    ("low", "high", "excludes"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0, 0, False)]
)
def test_excluding_zero(low: float, high: float, excludes: bool) -> None:
    assert Interval(low, high).excludes_zero() is excludes


def test_ten_thousand_draws_are_quick() -> None:
    generator = np.random.default_rng(0)
    study = made_up(generator, 0.7, facts=100, seeds=3)
    start = time.perf_counter()
    gap_interval(study, study, draws=10_000, generator=generator)
    assert time.perf_counter() - start < 2
