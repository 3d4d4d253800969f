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
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indelible.numbers.bootstrap import FEWEST_FACTS, Floats, Term, contrast
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES, Loss, Measure, RateKey, rate_named
from indelible.numbers.sources import Compared, Counted, Frame, Source


class Replicates:
    """All rates of a study, drawn together.

    Args:
        counts: gives the hits and asked of a rate for each arm that has it: frames indexed by seed, copy, fact_id with
            the columns hits and asked (counts or sums of weights). Equal ids in one set of facts are one fact.
        losses: gives the table of `log_odds.losses` of each arm.
        draws: 39 or more.
    """

    def __init__(
        self,
        counts: Callable[[str], Mapping[str, pd.DataFrame]],
        losses: Callable[[], Mapping[str, pd.DataFrame]] = dict,
        *,
        draws: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.draws = draws
        self.seed = seed
        self._counts = counts
        self._losses = losses
        self._counted: dict[str, dict[tuple[str, ...], Source]] = {}
        self._numbers: dict[tuple[str, ...], Floats] = {}
        self._fact_weights: dict[str, tuple[tuple[str, ...], Floats]] = {}
        self._chosen_weights: dict[str, tuple[tuple[str, ...], Floats]] = {}

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
            parts = measure.of(arm, sign) if other is None else measure.between(arm, other, sign)
            for key, weight in parts.items():
                weights[key] = weights.get(key, 0.0) + weight / len(pairs)
        return self.estimate(weights)

    def estimate_of(self, key: RateKey, count: pd.DataFrame) -> Estimate:
        """A rate that is counted at another moment than its measure says, a point of a curve, in the rate's draws."""
        self._found([key])
        counted = Counted(count, rate_named(key[1]).fact_set)
        return self._estimate({key: counted}, [1.0], 0.0) if counted.facts else Estimate()

    def terms(self, keys: Iterable[RateKey]) -> list[Term] | None:
        """What some rates are made of, over the seeds that all of them have; None where one has nothing."""
        counted = self._found(keys)
        return [term for terms in self._terms(counted, self._frame(counted)) for term in terms] if counted else None

    def _found(self, keys: Iterable[RateKey]) -> dict[RateKey, Source] | None:
        """What some rates are made of; None where one has nothing to be made of, or there are none."""
        found: dict[RateKey, Source] = {}
        for key in keys:
            arm, name, *other = key
            measure = MEASURES.get(name)
            if name not in self._counted:
                self._counted[name] = {} if isinstance(measure, Loss) else self._all_counted(name)
            known = self._counted[name]
            if isinstance(measure, Loss) and (arm, *other) not in known:
                tables = self._losses()
                if any(one not in tables for one in (arm, *other)):
                    return None
                known[arm, *other] = Compared(measure, [tables[one] for one in (arm, *other)])
            if (arm, *other) not in known or not known[arm, *other].facts:
                return None
            found[key] = known[arm, *other]
        return found or None

    def _all_counted(self, name: str) -> dict[tuple[str, ...], Source]:
        """A rate in every arm that has it."""
        fact_set = rate_named(name).fact_set
        return {(arm,): Counted(count, fact_set) for arm, count in self._counts(name).items()}

    def _frame(self, counted: Mapping[RateKey, Source]) -> Frame:
        seeds = tuple(sorted(frozenset.intersection(*(one.seeds for one in counted.values()))))
        models = sorted({model for one in counted.values() for model in one.models if model[0] in seeds})
        facts: dict[str, set[str]] = {}
        for (_, name, *_), one in counted.items():
            for source in (one, *self._counted[name].values()):
                for population, ids in source.facts.items():
                    facts.setdefault(population, set()).update(ids)
        in_order = {name: tuple(sorted(ids)) for name, ids in facts.items()}
        return Frame(seeds, tuple(models) if len(models) > len(seeds) else (), in_order)

    def _terms(self, counted: Mapping[RateKey, Source], frame: Frame) -> list[Sequence[Term]]:
        """Those of each key."""
        return [one.terms(frame) for one in counted.values()]

    def _estimate(self, counted: Mapping[RateKey, Source], of_keys: Sequence[float], constant: float) -> Estimate:
        frame = self._frame(counted)
        by_key = self._terms(counted, frame)
        terms = [term for found in by_key for term in found]
        found = Estimate(facts=_facts(terms), seeds=len(frame.seeds))
        if not all(by_key) or not all(term.facts for term in terms):
            return found
        weights = [weight for weight, of_key in zip(of_keys, by_key, strict=True) for _ in of_key]
        value = constant + sum(weight * term.rate for weight, term in zip(weights, terms, strict=True))
        if any(term.facts < FEWEST_FACTS for term in terms):
            return replace(found, value=value)
        keyed = [(key, term) for key, of_key in zip(counted, by_key, strict=True) for term in of_key]
        rates = [self._drawn(key, counted[key], term, frame) for key, term in keyed]
        normal, model_normal = (
            np.reshape([self._normal(*map(str, name)) for name in names], (len(names), self.draws))
            for names in ([("seed", seed) for seed in frame.seeds], [("model", *model) for model in frame.models])
        )
        drawn = contrast(terms, weights, rates, normal, model_normal)
        low, high = (constant + end if constant else end for end in drawn.interval)
        return replace(found, value=value, low=low, high=high, p=drawn.p)

    def _drawn(self, key: RateKey, counted: Source, term: Term, frame: Frame) -> Floats:
        """(draws,): a rate when facts are redrawn."""
        facts = frame.facts[term.population]
        place = frame.seeds, term.population, facts
        if place not in counted.drawn:
            half_facts = generator_of(self.seed, "rate", *key).standard_gamma(0.5, (2, self.draws))
            counted.drawn[place] = term.drawn(self._weights(term.population, facts), half_facts)
        return counted.drawn[place]

    def _weights(self, population: str, facts: tuple[str, ...]) -> Floats:
        """(facts, draws): the table of all that were drawn, where it has just these; or else rows of it, of which the
        last are kept: the rates of one measure follow one another."""
        known, table = self._fact_weights.get(population, ((), np.empty((0, self.draws))))
        if not set(facts) <= set(known):
            known, table = self._fact_weights[population] = self._with_more(population, known, table, facts)
            self._chosen_weights.pop(population, None)
        if known == facts:
            return table
        if population not in self._chosen_weights or self._chosen_weights[population][0] != facts:
            row = {fact: row for row, fact in enumerate(known)}
            self._chosen_weights[population] = facts, table[[row[fact] for fact in facts]]
        return self._chosen_weights[population][1]

    def _with_more(
        self, population: str, known: tuple[str, ...], table: Floats, facts: tuple[str, ...]
    ) -> tuple[tuple[str, ...], Floats]:
        """Facts with their numbers, in order, to which others have come."""
        row, together = {fact: row for row, fact in enumerate(known)}, tuple(sorted({*known, *facts}))
        grown = np.empty((len(together), self.draws))
        for fact, numbers in zip(together, grown, strict=True):
            if fact in row:
                numbers[:] = table[row[fact]]
            else:
                generator_of(self.seed, "fact", population, fact).standard_exponential(out=numbers)
        return together, grown

    def _normal(self, *name: str) -> Floats:
        """(draws,): of a seed or a model."""
        if name not in self._numbers:
            self._numbers[name] = generator_of(self.seed, *name).standard_normal(self.draws)
        return self._numbers[name]


def generator_of(seed: int, *names: str) -> np.random.Generator:
    """A generator for one thing, so that its numbers don't depend on what else is drawn."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def _facts(terms: Sequence[Term]) -> int:
    """Distinct facts of each set that any of the terms asks about in any seed."""
    asked: dict[str, NDArray[np.bool_]] = {}
    for term in terms:
        asked[term.population] = asked.get(term.population, np.zeros_like(term.asked, bool)) | (term.asked > 0)
    return sum(int(part.any(axis=0).sum()) for part in asked.values())
