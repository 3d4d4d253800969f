"""Many rates in one bootstrap, so that gaps, differences between arms and means over arms all come from the same draws.

What is redrawn, and why, is said in `statistics`. Here the rates of a whole study are drawn together: a fact has one
weight in every arm, seed and measure that asks it, which is what makes differences between arms paired; a seed has one
number in every arm and measure, and so has each copy of an isolated arm. Facts of the edited and of the intrinsic set
are drawn independently. Each fact's, seed's, copy's and rate's numbers come from a generator named after it, so that a
figure does not depend on which other arms are looked at beside it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indelible.numbers.answers import Answers
from indelible.numbers.bootstrap import (
    FEWEST_FACTS,
    Contrast,
    Floats,
    Interval,
    Sample,
    between_seeds,
    contrast,
    fact_draws,
)
from indelible.numbers.measures import MEASURES

RateKey = tuple[str, str]
"""Name of the arm, and key of `metrics.MEASURES`."""


@dataclass(frozen=True)
class Effect:
    """A weighted sum of rates: a gap, a difference, a mean, or one rate.

    Attributes:
        value: the sum, as a fraction; None where one of its rates has nothing in the denominator.
        interval: its 95% interval; None also where a rate rests on fewer than two facts.
        p: two-sided, against zero, from the same draws as the interval; None where that is.
        facts: pairs of fact and seed that it rests on, each counted once however many arms ask it.
        seeds: seeds that all its rates have; only these count.
        seed_share: of the variance, what seeds add beyond what facts and single models explain, as a fraction; 0 with
            one seed, or where seeds agree. More facts do not lessen this part. (What copies of isolated arms add is
            lessened by more of them, that is by more edits.)
    """

    value: float | None
    interval: Interval | None
    p: float | None
    facts: int
    seeds: int
    seed_share: float = 0.0


@dataclass(frozen=True)
class Replicates:
    """Rates and everything that their joint draws are made of.

    Attributes:
        values: every rate over all its seeds; None where nothing was asked.
        samples: hits and asked of every rate that has any, (seeds, facts).
        reached: rate -> (seeds,) whether the arm got so far in that seed.
        seeds: the seeds, in the order of those axes.
        draws: every rate that has a sample, drawn over facts, (draws,).
        fact_weights: fact set -> (facts, draws).
        half_facts: rate -> (2, draws).
        normal: (seeds, draws).
        models: (models,) the seed of each model, by place in ``seeds``; empty where every seed has one model.
        model_normal: (models, draws).
    """

    values: Mapping[RateKey, float | None]
    samples: Mapping[RateKey, Sample]
    reached: Mapping[RateKey, NDArray[np.bool_]]
    seeds: tuple[int, ...]
    draws: Mapping[RateKey, Floats]
    fact_weights: Mapping[str, Floats]
    half_facts: Mapping[RateKey, Floats]
    normal: Floats
    models: NDArray[np.int64]
    model_normal: Floats

    def effect(self, weights: Mapping[RateKey, float]) -> Effect:
        """A weighted sum of rates, e.g. {("memit", "retention_intrinsic"): 1, ("memit", "retention_edited"): -1}.

        Rates over different seeds are compared over the seeds that all of them have.

        Raises:
            KeyError: for a rate that was not replicated.
        """
        unknown = [key for key in weights if key not in self.values]
        if unknown:
            raise KeyError(f"{unknown[0]} is not among the replicated rates.")
        keys = [key for key, weight in weights.items() if weight != 0]
        if not keys or any(key not in self.samples for key in keys):
            return Effect(None, None, None, 0, 0)
        common = self._common(keys)
        samples = self.over_common_seeds(keys)
        facts, seeds = _facts(samples), int(common.sum())
        if any(sample.facts == 0 for sample in samples):
            return Effect(None, None, None, facts, seeds)
        factors = [float(weights[key]) for key in keys]
        if any(sample.facts < FEWEST_FACTS for sample in samples):
            value = sum(factor * sample.rate for factor, sample in zip(factors, samples, strict=True))
            return Effect(value, None, None, facts, seeds)
        drawn = [
            self.draws[key]
            if (self.reached[key] == common).all()
            else fact_draws(sample, self.fact_weights[sample.population], self.half_facts[key])
            for key, sample in zip(keys, samples, strict=True)
        ]
        found = contrast(samples, factors, drawn, self.normal[common], self.model_normal[common[self.models]])
        return Effect(found.value, found.interval, found.p, facts, seeds, _seed_share(found, samples, factors))

    def over_common_seeds(self, keys: Sequence[RateKey]) -> list[Sample]:
        """Samples of some rates, cut to the seeds that all of them have.

        Raises:
            KeyError: for a rate of which nothing was asked.
        """
        common = self._common(keys)
        return [_over(self.samples[key], common, common[self.models]) for key in keys]

    def _common(self, keys: Sequence[RateKey]) -> NDArray[np.bool_]:
        """(seeds,): whether all rates have a seed."""
        common: NDArray[np.bool_] = np.logical_and.reduce([self.reached[key] for key in keys])
        return common


def replicate(
    rows: pd.DataFrame | Answers, arms: Sequence[str], measures: Sequence[str], *, draws: int = 10_000, seed: int = 0
) -> Replicates:
    """Draw many rates of a study together.

    Args:
        rows: tidy rows of the whole study, as in facts.parquet, or the answers made of them.
        arms: names of arms; one that has no rows has no rates.
        measures: keys of `metrics.MEASURES`; those that do not apply to an arm (edits, in the control) are None there.
        draws: bootstrap draws, 39 or more.
        seed: of the bootstrap; the same seed gives the same draws.

    Raises:
        KeyError: for an unknown measure.
        DataError: if a column is missing, or a question was answered twice.
    """
    found: dict[RateKey, pd.DataFrame] = {}
    answers = Answers.of(rows)
    for arm in arms:
        for measure in measures if arm in answers else ():
            if (count := answers.counts(arm, measure)) is not None:
                found[arm, measure] = count
    values = {(arm, measure): None for arm in arms for measure in measures}
    populations = {key: MEASURES[key[1]].fact_set for key in found}
    drawn = replicate_counts(found, populations, draws=draws, seed=seed)
    return replace(drawn, values=values | dict(drawn.values))


def replicate_counts(
    found: Mapping[RateKey, pd.DataFrame], populations: Mapping[RateKey, str], *, draws: int, seed: int
) -> Replicates:
    """Draw rates together whose hits and questions are already counted.

    Args:
        found: rate -> frame indexed by seed, copy, fact_id with the columns hits and asked (counts or sums of weights).
        populations: rate -> name of the set that its facts are from; equal ids in one set are one fact.
        draws: as in `replicate`.
        seed: as in `replicate`.
    """
    counted = {key: _Counts.of(count) for key, count in found.items()}
    seeds = sorted({one for count in counted.values() for one in count.seeds})
    facts = {
        name: sorted({one for key in counted if populations[key] == name for one in counted[key].asked_about()})
        for name in sorted(set(populations.values()))
    }
    fact_weights = {
        name: np.array([generator_of(seed, "fact", name, one).standard_exponential(draws) for one in ids])
        for name, ids in facts.items()
    }
    normal = np.array([generator_of(seed, "seed", str(one)).standard_normal(draws) for one in seeds])
    models = sorted({one for count in counted.values() for one in count.models})
    models = models if len(models) > len(seeds) else []
    model_normal = [generator_of(seed, "model", *map(str, one)).standard_normal(draws) for one in models]
    samples, reached, drawn, half_facts = {}, {}, {}, {}
    for key, count in counted.items():
        if not count.asked.any():
            continue
        population = populations[key]
        samples[key] = count.sample(seeds, models, facts[population], population)
        reached[key] = np.isin(seeds, list(count.seeds))
        half_facts[key] = generator_of(seed, "rate", *key).standard_gamma(0.5, (2, draws))
        drawn[key] = fact_draws(samples[key], fact_weights[population], half_facts[key])
    values = {key: samples[key].rate if key in samples else None for key in found}
    return Replicates(
        values,
        samples,
        reached,
        tuple(seeds),
        drawn,
        fact_weights,
        half_facts,
        normal,
        models=np.array([seeds.index(one) for one, _ in models], dtype=np.int64),
        model_normal=np.reshape(model_normal, (len(models), draws)),
    )


def generator_of(seed: int, *names: str) -> np.random.Generator:
    """A generator for one thing, so that its numbers don't depend on what else is drawn."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


@dataclass(frozen=True)
class _Counts:
    """A rate's counts out of their frame: model (seed and copy), fact, hits and asked, one after the other."""

    models: list[tuple[int, int]]
    facts: list[str]
    hits: Floats
    asked: Floats

    @staticmethod
    def of(count: pd.DataFrame) -> _Counts:
        seeds, copies = (count.index.get_level_values(name).astype("int64").to_list() for name in ("seed", "copy"))
        facts = [str(one) for one in count.index.get_level_values("fact_id")]
        models = list(zip(seeds, copies, strict=True))
        return _Counts(models, facts, count["hits"].to_numpy(np.float64), count["asked"].to_numpy(np.float64))

    @property
    def seeds(self) -> set[int]:
        return {seed for seed, _ in self.models}

    def asked_about(self) -> set[str]:
        """Facts that were asked about in any seed; the others have no part in the rate."""
        return {fact for fact, asked in zip(self.facts, self.asked, strict=True) if asked > 0}

    def sample(
        self, seeds: Sequence[int], models: Sequence[tuple[int, int]], facts: Sequence[str], population: str
    ) -> Sample:
        """Hits and asked as (seeds, facts), and as (models, facts) where there are any."""
        by_model = self._sample(self.models, models, facts, population) if models else None
        of_seeds = self._sample([seed for seed, _ in self.models], seeds, facts, population)
        return replace(of_seeds, by_model=by_model)

    def _sample(
        self, row_of: Sequence[object], rows: Sequence[object], facts: Sequence[str], population: str
    ) -> Sample:
        row, column = ({name: place for place, name in enumerate(names)} for names in (rows, facts))
        table = np.zeros((2, len(rows), len(facts)))
        for name, fact, hits, asked in zip(row_of, self.facts, self.hits, self.asked, strict=True):
            if asked > 0:
                table[:, row[name], column[fact]] += hits, asked
        return Sample(table[0], table[1], population)


def _seed_share(found: Contrast, samples: Sequence[Sample], weights: Sequence[float]) -> float:
    whole = float(found.draws.var())
    return min(max(between_seeds(samples, weights), 0.0) / whole, 1.0) if whole > 0 else 0.0


def _over(sample: Sample, seeds: NDArray[np.bool_], models: NDArray[np.bool_]) -> Sample:
    by_model = sample.by_model
    kept = None if by_model is None else Sample(by_model.hits[models], by_model.asked[models], sample.population)
    return Sample(sample.hits[seeds], sample.asked[seeds], sample.population, kept)


def _facts(samples: Sequence[Sample]) -> int:
    """Pairs of fact and seed that any of the samples asks about."""
    asked: dict[str, NDArray[np.bool_]] = {}
    for sample in samples:
        asked[sample.population] = asked.get(sample.population, np.zeros_like(sample.asked, bool)) | (sample.asked > 0)
    return sum(int(part.sum()) for part in asked.values())
