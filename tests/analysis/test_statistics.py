"""Intervals: they cover the truth as often as they say, at the width that theory gives, and quickly."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from indelible.analysis.statistics import Interval, gap_interval, rate_interval

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
    studies, covered = 200, 0
    for _ in range(studies):
        study = made_up(generator, 0.6, facts=40, seeds=5, spread=0.08)
        interval = rate_interval(study, draws=500, generator=generator)
        assert interval is not None
        covered += interval.low <= 0.6 <= interval.high
    assert covered / studies >= 0.93


def test_the_width_is_that_of_the_binomial_and_of_seeds() -> None:
    generator = np.random.default_rng(0)
    one = rate_interval({0: fixed(240, 400, 400)}, draws=20_000, generator=generator)
    assert one is not None
    half_width = 1.96 * np.sqrt(0.6 * 0.4 / 400)
    assert (one.low, one.high) == pytest.approx((0.6 - half_width, 0.6 + half_width), abs=0.004)
    # Facts without noise inside a seed: what is left is the draw of seeds, whose means are 0, 1/3, 2/3 or 1.
    apart = rate_interval(
        {0: fixed(0, 50, 50), 1: fixed(50, 50, 50), 2: fixed(50, 50, 50)}, draws=20_000, generator=generator
    )
    assert apart == Interval(0.0, 1.0)


def test_redrawing_kinds_is_redrawing_facts() -> None:
    facts = np.array([[0, 0], [0, 1], [1, 1], [1, 1], [2, 3], [0, 2], [3, 3], [1, 2]], dtype=np.int64)
    generator = np.random.default_rng(5)
    interval = rate_interval({0: facts}, draws=40_000, generator=generator)
    assert interval is not None
    totals = facts[generator.integers(len(facts), size=(40_000, len(facts)))].sum(axis=1)
    one_by_one = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx(one_by_one, abs=0.02)


def test_both_sets_follow_the_same_draw_of_seeds() -> None:
    """When a seed lifts both sets alike the gap is certain; independent draws of seeds would make it vary."""
    study = {0: fixed(0, 30, 30), 1: fixed(30, 30, 30), 2: fixed(30, 30, 30)}
    interval = gap_interval(study, study, draws=2_000, generator=np.random.default_rng(0))
    assert interval == Interval(0.0, 0.0)


def test_the_order_of_facts_does_not_matter_and_a_seed_repeats() -> None:
    generator = np.random.default_rng(0)
    study = made_up(generator, 0.7, facts=50, seeds=2)
    shuffled = {seed: generator.permutation(study[seed]) for seed in (1, 0)}
    first, second, other = (
        rate_interval(facts, draws=1_000, generator=np.random.default_rng(seed))
        for facts, seed in ((study, 7), (shuffled, 7), (study, 8))
    )
    assert first == second != other


def test_too_many_empty_draws_leave_no_interval() -> None:
    generator = np.random.default_rng(0)
    assert rate_interval({}, draws=100, generator=generator) is None
    assert rate_interval({0: np.zeros((0, 2), dtype=np.int64)}, draws=100, generator=generator) is None
    assert rate_interval({0: fixed(0, 0, 24)}, draws=100, generator=generator) is None
    assert rate_interval({0: fixed(1, 1, 24)}, draws=1_000, generator=generator) is None  # 36% of draws are empty
    assert rate_interval({0: fixed(2, 4, 24)}, draws=1_000, generator=generator) is not None  # 1.3%
    assert gap_interval({0: fixed(9, 9, 9)}, {0: fixed(1, 1, 24)}, draws=1_000, generator=generator) is None


def test_a_seed_with_only_one_of_the_sets_is_drawn_all_the_same() -> None:
    interval = gap_interval(
        {0: fixed(20, 20, 20), 1: fixed(20, 20, 20)},
        {1: fixed(0, 20, 20), 0: fixed(0, 20, 20), 2: fixed(0, 20, 20)},
        draws=1_000,
        generator=np.random.default_rng(0),
    )
    assert interval == Interval(1.0, 1.0)


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
