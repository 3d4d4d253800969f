"""A study's answers, arm by arm, with what is counted and drawn from them once, so that all of a report says the same.

Every rate is a ratio of two sums over facts (hits over asked), pooled over seeds. A question counts as asked only when
it was answered in each phase that the rate compares, so that a step that failed is missing and not forgotten. The sums
stay apart per fact, because intervals resample facts.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from indelible.errors import DataError
from indelible.numbers.alike.adjusting import with_counterpart
from indelible.numbers.alike.durability import Passages, passages, passed
from indelible.numbers.alike.log_odds import losses, part_of
from indelible.numbers.alike.matching import matched_counts
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import (
    FACT_SETS,
    MEASURES,
    PHASES,
    QUESTION,
    Durability,
    FactSet,
    Measure,
    Rate,
    is_control,
    rate_named,
    require_columns,
)
from indelible.numbers.paired import compare, hits_among
from indelible.numbers.replicates import Replicates

WORDS = (
    *("arm", "editor", "objective", "tuner", "mask", "protect", "fact_set", "fact_id", "subject", "relation", "phase"),
    *("kind", "prompt", "target", "rival", "generated"),
)
"""Columns of text, in which millions of rows have few values or share them."""


class Answers:
    """Tidy rows, one per arm × seed × phase × step × question as in facts.parquet (``rows`` has them arm by arm, with
    words as categories), and what was made of them so far: above all ``replicates``, all rates drawn together (39 draws
    or more), with the same draws for the same seed. The run table has the held-out figures that durability is over;
    without it there is none."""

    def __init__(
        self, rows: pd.DataFrame, runs: pd.DataFrame | None = None, *, draws: int = 10_000, seed: int = 0
    ) -> None:
        self.rows = _by_arm(rows)
        self.runs = pd.DataFrame() if runs is None else runs
        self.replicates = Replicates(self._counts_of, self._losses_of, draws=draws, seed=seed)
        self._of_arm = _parts(self.rows) if len(rows) else {}
        self._outcomes: dict[tuple[str, str], pd.DataFrame] = {}
        self._matched: dict[str, dict[FactSet, pd.DataFrame]] = {}
        self._counts: dict[tuple[str, str], pd.DataFrame] = {}
        self._hits: dict[tuple[str, str], pd.DataFrame] = {}
        self._losses: dict[str, pd.DataFrame] = {}
        self._passages: dict[str, Passages] = {}

    def arm(self, name: str) -> pd.DataFrame:
        """The rows of an arm; none for one that never got to ask."""
        return self._of_arm.get(name, self.rows.iloc[:0])

    def arms(self, runs: pd.DataFrame) -> list[str]:
        """The arms in order of appearance in the run table, then any that only the rows know, by name."""
        planned = [str(name) for name in runs["arm"].drop_duplicates()]
        return planned + sorted(self._of_arm.keys() - set(planned))

    def outcomes(self, arm: str, criterion: str = "success") -> pd.DataFrame:
        """`outcomes` of an arm."""
        if (arm, criterion) not in self._outcomes:
            self._outcomes[arm, criterion] = outcomes(self.arm(arm), criterion)
        return self._outcomes[arm, criterion]

    def counts(self, arm: str, rate: str) -> pd.DataFrame | None:
        """`counts` of a rate, or of a durability (`durability.passed`), in an arm; None where it does not apply."""
        found = rate_named(rate)
        if not found.applies(is_control(self.arm(arm))):
            return None
        if (arm, rate) not in self._counts:
            if isinstance(MEASURES.get(rate), Durability):
                if arm not in (ways := self.passages(found)):
                    return None
                self._counts[arm, rate] = passed(self.arm(arm), self.outcomes(arm, found.criterion), found, ways[arm])
            elif found.matched:
                self._counts[arm, rate] = self._matched_of(arm)[found.fact_set]
            else:
                self._counts[arm, rate] = counts(self.outcomes(arm, found.criterion), found)
        return self._counts[arm, rate]

    def passages(self, rate: Rate) -> Passages:
        """`durability.passages` by the exams that a rate is about."""
        if rate.name not in self._passages:
            self._passages[rate.name] = passages(self.rows, self.runs, rate)
        return self._passages[rate.name]

    def losses(self, arm: str) -> pd.DataFrame:
        """`log_odds.losses` of an arm."""
        if arm not in self._losses:
            self._losses[arm] = losses(self.arm(arm), self.outcomes(arm))
        return self._losses[arm]

    def without_counterpart(self, arm: str) -> tuple[int, list[str]]:
        """Of the edits' questions of an arm that worked before tuning, how many have no counterpart among those of
        intrinsic facts, so that the extra loss at equal start says nothing about them; and the facts that they ask."""
        edited, intrinsic = (part_of(self.losses(arm), name) for name in FACT_SETS)
        compared = with_counterpart(edited, intrinsic)
        left = edited.merge(compared[QUESTION], on=QUESTION, how="left", indicator=True)
        left = left[left["_merge"] == "left_only"]
        return len(left), sorted(left["fact_id"].unique())

    def difference(
        self, arm: str, other: str, measure: Measure, *, sign: float = 1.0, generator: np.random.Generator
    ) -> tuple[Estimate, str]:
        """A measure in one arm less that in another, times ``sign``, and the test that its p is of.

        The p of a rate is the larger of the bootstrap's and the paired test's, whose permutations come from the
        generator.
        """
        estimate = self.replicates.estimate(measure.between(arm, other, sign))
        if estimate.value is None or not isinstance(measure, Rate):
            return estimate, "bootstrap"
        first, second = self._hits_of(arm, measure), self._hits_of(other, measure)
        p, test = compare(first, second, bootstrap=estimate.p, generator=generator)
        return replace(estimate, p=p), test

    def _counts_of(self, rate: str) -> dict[str, pd.DataFrame]:
        """Counts of every arm that has a rate."""
        return {arm: count for arm in self._of_arm if (count := self.counts(arm, rate)) is not None}

    def _losses_of(self) -> dict[str, pd.DataFrame]:
        """Losses of every arm."""
        return {arm: self.losses(arm) for arm in self._of_arm}

    def _matched_of(self, arm: str) -> dict[FactSet, pd.DataFrame]:
        if arm not in self._matched:
            self._matched[arm] = matched_counts(self.arm(arm), self.outcomes(arm))
        return self._matched[arm]

    def _hits_of(self, arm: str, rate: Rate) -> pd.DataFrame:
        if (arm, rate.name) not in self._hits:
            self._hits[arm, rate.name] = hits_among(self.outcomes(arm, rate.criterion), rate)
        return self._hits[arm, rate.name]


def _by_arm(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with arms one below the other and each of `WORDS` held once, as a category, in order of the alphabet:
    millions of rows fit into memory, and words are compared as numbers."""
    words = {name: rows[name].astype("category") for name in WORDS if name in rows}
    ordered = {name: word.cat.reorder_categories(sorted(word.cat.categories)) for name, word in words.items()}
    rows = rows.assign(**ordered)
    together = "arm" not in rows or rows["arm"].cat.codes.is_monotonic_increasing
    return rows if together else rows.sort_values("arm", kind="stable", ignore_index=True)


def _parts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each arm, which are not copied."""
    codes = rows["arm"].cat.codes.to_numpy()
    begins = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(rows)]
    return {str(rows["arm"].iloc[one]): rows.iloc[one:other] for one, other in pairwise(begins)}


def outcomes(rows: pd.DataFrame, criterion: str = "success") -> pd.DataFrame:
    """One arm's rows, turned so that each question has what happened to it on one line; points of curves are left out.

    Returns:
        A frame indexed by `QUESTION` (sorted) with the float columns base, edited, tuned and before (edited, and base
        in the control): 1 where the criterion holds, 0 where not, NaN where the question was not asked.

    Raises:
        DataError: if a column is missing, or a question was answered twice in one phase.
    """
    require_columns(rows, ["editor", "phase", *QUESTION, criterion], "table of answers")
    kept = rows.loc[rows["phase"].isin(PHASES), [*QUESTION, "phase", criterion]]
    twice = kept.duplicated([*QUESTION, "phase"])
    if twice.any():
        first = kept[twice].iloc[0]
        raise DataError(
            f"Fact {first['fact_id']!r} (seed {first['seed']}) has two answers to one question in phase "
            f"{first['phase']!r}.",
            "Each arm, seed, phase and question may stand in the table once.",
        )
    values = kept[criterion].astype("Float64").astype("float64")
    wide = kept.assign(value=values).set_index([*QUESTION, "phase"])["value"].unstack("phase")
    wide = wide.reindex(columns=list(PHASES)).astype("float64").sort_index()
    wide.columns.name = None
    return wide.assign(before=wide["base"] if is_control(rows) else wide["edited"])


def counts(outcome: pd.DataFrame, rate: Rate) -> pd.DataFrame:
    """Hits and questions asked by seed, copy and fact_id, of one arm's `outcomes` by the rate's own criterion.

    A fact whose questions were answered but are outside the denominator stays, with asked 0: its seed got so far. A
    fact that was never asked (its seed failed earlier) does not.
    """
    chosen = outcome[rate.asks(outcome)]
    asked = pd.Series(True, index=chosen.index)
    if rate.among is not None:
        chosen = chosen[chosen[rate.among].notna()]
        asked = chosen[rate.among] == 1
    hits = asked & (chosen[rate.hit] == 1)
    table = pd.DataFrame({"hits": hits.astype("int64"), "asked": asked.astype("int64")})
    return table.groupby(level=["seed", "copy", "fact_id"], observed=True).sum()


def pooled(count: pd.DataFrame | None) -> float | None:
    """Hits over asked, pooled over facts and seeds; None when nothing was asked."""
    asked = 0 if count is None else int(count["asked"].sum())
    return None if count is None or not asked else float(count["hits"].sum()) / asked
