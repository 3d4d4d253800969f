"""Many rates in one bootstrap, so that gaps, differences between arms and means over arms all come from the same draws.

What is redrawn, and why, is said in `bootstrap`. Here a fact has one weight in every arm, seed and measure that asks
it, which is what makes differences between arms paired; a seed has one number in every arm and measure, and so has each
copy of an isolated arm. Facts of the edited and of the intrinsic set are drawn independently. Each fact's, seed's,
copy's and rate's numbers come from a generator named after it, so that a figure does not depend on which others are
looked at beside it; they are drawn when they are first needed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indelible.numbers.bootstrap import FEWEST_FACTS, Contrast, Floats, Sample, between_seeds, contrast, fact_draws
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import Measure, RateKey, rate_named


class Replicates:
    """All rates of a study, drawn together.

    Args:
        counts: gives the hits and asked of a rate for each arm that has it: frames indexed by seed, copy, fact_id with
            the columns hits and asked (counts or sums of weights). Equal ids in one set of facts are one fact.
        draws: 39 or more.
    """

    def __init__(
        self, counts: Callable[[str], Mapping[str, pd.DataFrame]], *, draws: int = 10_000, seed: int = 0
    ) -> None:
        self.draws = draws
        self.seed = seed
        self._counts = counts
        self._counted: dict[str, dict[str, _Counted]] = {}
        self._numbers: dict[tuple[str, ...], Floats] = {}
        self._fact_weights: dict[str, tuple[Sequence[str], Floats]] = {}

    def has(self, arm: str, measure: Measure) -> bool:
        """Whether there is something to form a measure of in one arm."""
        return self._found(measure.of(arm)) is not None

    def of(self, arm: str, measure: Measure) -> Estimate:
        """A measure in one arm."""
        return self.estimate(measure.of(arm), measure.constant)

    def estimate(self, weights: Mapping[RateKey, float], constant: float = 0.0) -> Estimate:
        """A weighted sum of rates, e.g. {("memit", "retention_intrinsic"): 1, ("memit", "retention_edited"): -1}, over
        the seeds that all of them have; p is that of the sum without the constant."""
        used = {key: float(weight) for key, weight in weights.items() if weight}
        counted = self._found(used)
        return self._estimate(counted, list(used.values()), constant) if counted else Estimate()

    def mean(self, measure: Measure, pairs: Sequence[tuple[str, str | None]], sign: float = 1.0) -> Estimate:
        """The mean of a measure over arms, or over differences between two arms each, times ``sign``."""
        weights: dict[RateKey, float] = {}
        for arm, other in pairs:
            parts = measure.of(arm, sign) | (measure.of(other, -sign) if other is not None else {})
            for key, weight in parts.items():
                weights[key] = weights.get(key, 0.0) + weight / len(pairs)
        return self.estimate(weights)

    def estimate_of(self, key: RateKey, count: pd.DataFrame) -> Estimate:
        """A rate that is counted at another moment than its measure says, a point of a curve, in the rate's draws."""
        self._found([key])
        counted = _Counted(count)
        return self._estimate({key: counted}, [1.0], 0.0) if counted.facts else Estimate()

    def samples(self, keys: Iterable[RateKey]) -> list[Sample] | None:
        """What some rates are made of, over the seeds that all of them have; None where one has nothing."""
        counted = self._found(keys)
        return self._samples(counted, self._frame(counted)) if counted else None

    def _found(self, keys: Iterable[RateKey]) -> dict[RateKey, _Counted] | None:
        """What was counted of some rates; None where of one nothing was asked, or there are none."""
        found: dict[RateKey, _Counted] = {}
        for arm, rate in keys:
            if rate not in self._counted:
                every = {name: _Counted(count) for name, count in self._counts(rate).items()}
                self._counted[rate] = {name: counted for name, counted in every.items() if counted.facts}
            if arm not in self._counted[rate]:
                return None
            found[arm, rate] = self._counted[rate][arm]
        return found or None

    def _frame(self, counted: Mapping[RateKey, _Counted]) -> _Frame:
        seeds = tuple(sorted(frozenset.intersection(*(one.seeds for one in counted.values()))))
        models = sorted({model for one in counted.values() for model in one.models if model[0] in seeds})
        facts: dict[str, set[str]] = {}
        for (_, rate), one in counted.items():
            beside = self._counted[rate].values()
            facts.setdefault(rate_named(rate).fact_set, set()).update(one.facts, *(other.facts for other in beside))
        in_order = {name: tuple(sorted(ids)) for name, ids in facts.items()}
        return _Frame(seeds, tuple(models) if len(models) > len(seeds) else (), in_order)

    def _samples(self, counted: Mapping[RateKey, _Counted], frame: _Frame) -> list[Sample]:
        return [one.sample(frame, rate_named(rate).fact_set) for (_, rate), one in counted.items()]

    def _estimate(self, counted: Mapping[RateKey, _Counted], weights: Sequence[float], constant: float) -> Estimate:
        frame = self._frame(counted)
        samples = self._samples(counted, frame)
        found = Estimate(facts=_facts(samples), seeds=len(frame.seeds))
        if not all(sample.facts for sample in samples):
            return found
        value = constant + sum(weight * sample.rate for weight, sample in zip(weights, samples, strict=True))
        if any(sample.facts < FEWEST_FACTS for sample in samples):
            return replace(found, value=value)
        rates = [self._drawn(key, counted[key], sample, frame) for key, sample in zip(counted, samples, strict=True)]
        normal, model_normal = (
            np.reshape([self._normal(*map(str, name)) for name in names], (len(names), self.draws))
            for names in ([("seed", seed) for seed in frame.seeds], [("model", *model) for model in frame.models])
        )
        drawn = contrast(samples, weights, rates, normal, model_normal)
        low, high = (constant + end if constant else end for end in drawn.interval)
        share = _seed_share(drawn, samples, weights)
        return replace(found, value=value, low=low, high=high, p=drawn.p, seed_share=share)

    def _drawn(self, key: RateKey, counted: _Counted, sample: Sample, frame: _Frame) -> Floats:
        """(draws,): a rate when facts are redrawn."""
        facts = frame.facts[sample.population]
        place = frame.seeds, facts
        if place not in counted.drawn:
            half_facts = generator_of(self.seed, "rate", *key).standard_gamma(0.5, (2, self.draws))
            counted.drawn[place] = fact_draws(sample, self._weights(sample.population, facts), half_facts)
        return counted.drawn[place]

    def _weights(self, population: str, facts: Sequence[str]) -> Floats:
        """(facts, draws): as one table, of which the last is kept; the rates of one measure follow one another."""
        kept = self._fact_weights.get(population)
        if kept is None or kept[0] != facts:
            for fact in facts:
                name = ("fact", population, fact)
                if name not in self._numbers:
                    self._numbers[name] = generator_of(self.seed, *name).standard_exponential(self.draws)
            kept = facts, np.array([self._numbers["fact", population, fact] for fact in facts])
            self._fact_weights[population] = kept
        return kept[1]

    def _normal(self, *name: str) -> Floats:
        """(draws,): of a seed or a model."""
        if name not in self._numbers:
            self._numbers[name] = generator_of(self.seed, *name).standard_normal(self.draws)
        return self._numbers[name]


def generator_of(seed: int, *names: str) -> np.random.Generator:
    """A generator for one thing, so that its numbers don't depend on what else is drawn."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


@dataclass(frozen=True)
class _Frame:
    """What stands along the axes of samples that are set against each other: the seeds that all of their rates have;
    seed and copy of each model, or none where every seed has one; all facts of a set that any arm of the study is asked
    about in these rates."""

    seeds: tuple[int, ...]
    models: tuple[tuple[int, int], ...]
    facts: Mapping[str, tuple[str, ...]]


class _Counted:
    """A rate's counts in one arm: the models (seed and copy) and seeds that got so far, the facts that were asked about
    in any of them, and by the seeds and facts that it was drawn over (draws,) rates."""

    def __init__(self, count: pd.DataFrame) -> None:
        models = count.reset_index("fact_id").index
        self.models = frozenset((int(seed), int(copy)) for seed, copy in models)
        self.seeds = frozenset(seed for seed, _ in self.models)
        asked = count["asked"] > 0
        self._models = models[asked]
        self._facts = count.index.get_level_values("fact_id")[asked].astype(str)
        self._hits, self._asked = (count.loc[asked, name].to_numpy(np.float64) for name in ("hits", "asked"))
        self.facts = frozenset(self._facts)
        self.drawn: dict[tuple[tuple[int, ...], tuple[str, ...]], Floats] = {}

    def sample(self, frame: _Frame, population: str) -> Sample:
        """Hits and asked as (seeds, facts), and as (models, facts) where there are any."""
        facts = frame.facts[population]
        column = pd.Index(facts).get_indexer(self._facts)
        row = pd.Index(frame.seeds).get_indexer(self._models.get_level_values("seed"))
        tables = self._table(row, column, (len(frame.seeds), len(facts)))
        if not frame.models:
            return Sample(*tables, population)
        row = pd.MultiIndex.from_tuples(frame.models).get_indexer(self._models)
        by_model = self._table(row, column, (len(frame.models), len(facts)))
        return Sample(*tables, population, Sample(*by_model, population))

    def _table(self, row: NDArray[np.intp], column: NDArray[np.intp], shape: tuple[int, int]) -> tuple[Floats, Floats]:
        """Hits and asked; those of seeds that are not in the table are left out."""
        tables, there = (np.zeros(shape), np.zeros(shape)), row >= 0
        for table, values in zip(tables, (self._hits, self._asked), strict=True):
            np.add.at(table, (row[there], column[there]), values[there])
        return tables


def _seed_share(found: Contrast, samples: Sequence[Sample], weights: Sequence[float]) -> float:
    whole = float(found.draws.var())
    return min(max(between_seeds(samples, weights), 0.0) / whole, 1.0) if whole > 0 else 0.0


def _facts(samples: Sequence[Sample]) -> int:
    """Pairs of fact and seed that any of the samples asks about."""
    asked: dict[str, NDArray[np.bool_]] = {}
    for sample in samples:
        asked[sample.population] = asked.get(sample.population, np.zeros_like(sample.asked, bool)) | (sample.asked > 0)
    return sum(int(part.sum()) for part in asked.values())
