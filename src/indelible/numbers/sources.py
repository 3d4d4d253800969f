"""What a figure is made of in one arm, or in two, before it is known which seeds and facts it is set beside.

A `Frame` says what stands along the axes of terms that are set against each other; a source then gives its terms.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from indelible.numbers.alike.adjusting import Fit, extra_loss, mean_loss
from indelible.numbers.alike.log_odds import part_of
from indelible.numbers.bootstrap import Effect, Floats, Sample, Term
from indelible.numbers.measures import FACT_SETS, FactSet, Loss

_KEPT = {"seed": "int64", "copy": "int64", "fact_set": "category", "fact_id": "category", "error": "float64"}


@dataclass(frozen=True)
class Frame:
    """The seeds that all terms have; seed and copy of each model, or none where every seed has one; all facts of a set
    that any arm of the study is asked about in these figures."""

    seeds: tuple[int, ...]
    models: tuple[tuple[int, int], ...]
    facts: Mapping[str, tuple[str, ...]]


class Source(ABC):
    """The models (seed and copy) and seeds that got so far, the facts of each set that were asked about in any of them
    (none where there is nothing to form a figure of), and by the seeds and facts that it was drawn over (draws,)
    values of its terms."""

    models: frozenset[tuple[int, int]]
    facts: Mapping[FactSet, frozenset[str]]

    def __init__(self) -> None:
        self.drawn: dict[tuple[tuple[int, ...], str, tuple[str, ...]], Floats] = {}
        self._last: tuple[Frame, Sequence[Term]] | None = None

    @property
    def seeds(self) -> frozenset[int]:
        """Those of its models."""
        return frozenset(seed for seed, _ in self.models)

    def terms(self, frame: Frame) -> Sequence[Term]:
        """What it contributes to a weighted sum; nothing where these seeds leave nothing to compare."""
        if self._last is None or self._last[0] != frame:
            self._last = frame, self._terms(frame)
        return self._last[1]

    @abstractmethod
    def _terms(self, frame: Frame) -> Sequence[Term]:
        """The same, made anew."""


class Counted(Source):
    """A rate in one arm, from its hits and asked by seed, copy and fact_id, a table that others hold too."""

    def __init__(self, count: pd.DataFrame, fact_set: FactSet) -> None:
        super().__init__()
        self._count, self._set = count, fact_set
        models = count.reset_index("fact_id").index.unique()
        self.models = frozenset((int(seed), int(copy)) for seed, copy in models)
        asked = count.index[count["asked"] > 0]
        self.facts = {fact_set: _held_once(asked.get_level_values("fact_id"))} if len(asked) else {}

    def _terms(self, frame: Frame) -> list[Term]:
        """Hits and asked as (seeds, facts), and as (models, facts) where there are any."""
        facts, found, count = frame.facts[self._set], None, self._count[self._count["asked"] > 0]
        models, ids = count.reset_index("fact_id").index, count.index.get_level_values("fact_id").astype(str)
        values = (count[name].to_numpy(np.float64) for name in ("hits", "asked"))
        for hits, asked in _tables(frame, facts, models, ids, *values):
            found = Sample(hits, asked, self._set, by_model=found)
        return [found] if found else []


class Compared(Source):
    """A loss in one arm, from its table of losses, or against another arm, from both. There is one for each pair of
    arms; so the tables are shared among them, and of a fit no more is kept than its terms are made of."""

    def __init__(self, measure: Loss, tables: Sequence[pd.DataFrame]) -> None:
        super().__init__()
        self._measure, self._losses = measure, tables
        groups = self._groups()
        self._fits: dict[tuple[int, ...], Fit | None] = {}
        shared = [set(zip(group["seed"], group["copy"], strict=True)) for group in groups]
        seeds = set.intersection(*({seed for seed, _ in models} for models in shared))
        self.models = frozenset((int(seed), int(copy)) for seed, copy in set.union(*shared) if seed in seeds)
        fit = self._fit(tuple(sorted(seeds)))
        compared = fit.questions if fit else groups[0].iloc[:0]
        parts = {name: part_of(compared, name)["fact_id"] for name in FACT_SETS}
        self.facts = {name: _held_once(ids) for name, ids in parts.items() if len(ids)}

    def _groups(self) -> list[pd.DataFrame]:
        """The questions that are compared, and those that they are compared with, if any."""
        of_set = [part_of(table, self._measure.fact_set) for table in self._losses]
        within = [part_of(self._losses[0], name) for name in FACT_SETS if name == self._measure.against]
        return [*of_set, *within]

    def _terms(self, frame: Frame) -> list[Term]:
        """The effect, once, with the errors of the facts of each set that has a part in it."""
        if (fit := self._fit(frame.seeds)) is None:
            return []
        found: list[Term] = []
        for name in FACT_SETS:
            own = part_of(fit.questions, name)
            if own.empty:
                continue
            models = pd.MultiIndex.from_frame(own[["seed", "copy"]])
            errors, asked = own["error"].to_numpy(np.float64), np.ones(len(own))
            value, effect = 0.0 if found else fit.value, None
            for of_facts, counted in _tables(frame, frame.facts[name], models, pd.Index(own["fact_id"]), errors, asked):
                effect = Effect(value, of_facts, counted, name, by_model=effect)
            found += [effect] if effect else []
        return found

    def _fit(self, seeds: tuple[int, ...]) -> Fit | None:
        if seeds not in self._fits:
            first, *second = (group[group["seed"].isin(seeds)] for group in self._groups())
            over_both = self._measure.against == "arm"
            fit = extra_loss(first, second[0], over_both=over_both) if second else mean_loss(first)
            self._fits[seeds] = fit and replace(fit, questions=fit.questions[list(_KEPT)].astype(_KEPT))
        return self._fits[seeds]


def _held_once(ids: pd.Index | pd.Series) -> frozenset[str]:
    """Distinct ids, of which the sources of a study, thousands of them, hold one copy together."""
    return frozenset(sys.intern(str(one)) for one in ids.unique())


def _tables(
    frame: Frame, facts: Sequence[str], models: pd.Index, ids: pd.Index, first: Floats, second: Floats
) -> Iterator[tuple[Floats, Floats]]:
    """Two columns of values summed as (models, facts), where there are models, and last as (seeds, facts); what is of
    other seeds is left out."""
    column = pd.Index(facts).get_indexer(ids)
    rows = [(pd.Index(frame.seeds).get_indexer(models.get_level_values("seed")), len(frame.seeds))]
    if frame.models:
        rows.append((pd.MultiIndex.from_tuples(frame.models).get_indexer(models), len(frame.models)))
    for row, number in reversed(rows):
        tables, there = (np.zeros((number, len(facts))), np.zeros((number, len(facts)))), row >= 0
        for table, values in zip(tables, (first, second), strict=True):
            np.add.at(table, (row[there], column[there]), values[there])
        yield tables
