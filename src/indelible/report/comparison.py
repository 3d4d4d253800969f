"""Two runs side by side: what changed between them, arm by arm, with intervals that pair the facts that both asked.

Arms belong together when they have one name, or else one editor, objective, tuner, mask and number of paraphrases. The
answers of both runs are drawn in one bootstrap: a fact has the same weight in both, so that an interval speaks of the
change and not of which facts were taken; where the runs asked different facts, the draws are independent.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import FACTORS, Measure, measures
from indelible.numbers.replicates import Replicates
from indelible.report.run import Run
from indelible.report.transcript import transcript

FACT = ["seed", "fact_set", "fact_id", "target"]


@dataclass(frozen=True)
class Change:
    """One rate in both runs, and the second less the first."""

    measure: Measure
    first: Estimate
    second: Estimate
    difference: Estimate


@dataclass(frozen=True)
class ArmChange:
    """One arm in both runs.

    Attributes:
        first: its name in the first run.
        second: its name in the second.
        changes: of the measures that both runs have, by their names.
        facts: that both asked, with the columns of a transcript in the second run, and in the first as outcome_first
            and tuned_says_first and tuned_success_first; of an isolated arm's models, the first whose outcome most of
            them share.
    """

    first: str
    second: str
    changes: dict[str, Change]
    facts: pd.DataFrame

    @property
    def title(self) -> str:
        """The arm's name, or both where they differ."""
        return self.first if self.first == self.second else f"{self.first} / {self.second}"

    @property
    def lost(self) -> pd.DataFrame:
        """Facts kept in the first run and lost in the second."""
        return self._flipped("kept", "lost")

    @property
    def regained(self) -> pd.DataFrame:
        """Facts lost in the first run and kept in the second."""
        return self._flipped("lost", "kept")

    def _flipped(self, first: str, second: str) -> pd.DataFrame:
        return self.facts[(self.facts["outcome_first"] == first) & (self.facts["outcome"] == second)]


@dataclass(frozen=True)
class Comparison:
    """What changed from the first run to the second.

    Attributes:
        arms: those that both have.
        mean: change of edited retention, the mean over the arms that have it in both; None without any.
        averaged: how many arms that is.
        only_first: arms of the first run alone.
        only_second: of the second.
        shared_seeds: seeds that both runs have.
    """

    arms: tuple[ArmChange, ...]
    mean: Estimate | None
    averaged: int
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    shared_seeds: int


def paired_arms(first: pd.DataFrame, second: pd.DataFrame) -> list[tuple[str, str]]:
    """Arms that belong together, by name or else by what they are where only one arm of each run is that.

    Args:
        first: run table of the first run.
        second: of the second.
    """
    of_first, of_second = (table.drop_duplicates("arm").set_index("arm")[list(FACTORS)] for table in (first, second))
    pairs = {str(arm): str(arm) for arm in of_first.index if arm in of_second.index}
    rest_of_first, rest_of_second = _by_settings(of_first, pairs), _by_settings(of_second, pairs)
    pairs |= {arm: rest_of_second[about] for about, arm in rest_of_first.items() if about in rest_of_second}
    return [(str(arm), pairs[str(arm)]) for arm in of_first.index if str(arm) in pairs]


def _by_settings(arms: pd.DataFrame, taken: Collection[str]) -> dict[tuple[Any, ...], str]:
    """What an arm is -> its name, of those not taken that are the only one of their kind."""
    rest = arms[~arms.index.isin(list(taken))].drop_duplicates(keep=False)
    return {tuple(about): str(arm) for arm, *about in rest.itertuples(name=None)}


def compare_runs(first: Run, second: Run) -> Comparison:
    """What changed from the first run to the second, which also says how many draws are made, and with which seed."""
    pairs = paired_arms(first.runs, second.runs)
    both = pd.concat([_named(first, 0), _named(second, 1)], ignore_index=True)
    own = second.answers.replicates
    found = Answers(both, draws=own.draws, seed=own.seed).replicates
    arms = tuple(
        ArmChange(*pair, _changes(found, *pair), _facts(first.answers.arm(pair[0]), second.answers.arm(pair[1])))
        for pair in pairs
    )
    measured = [arm for arm in arms if "retention_edited" in arm.changes]
    weights = {
        (_name(name, side), "retention_edited"): sign / len(measured)
        for arm in measured
        for side, (name, sign) in enumerate(((arm.first, -1.0), (arm.second, 1.0)))
    }
    only_first, only_second = (
        tuple(arm for arm in run.arms if arm not in {pair[side] for pair in pairs})
        for side, run in enumerate((first, second))
    )
    mean = found.estimate(weights) if measured else None
    seeds = set(first.answers.rows["seed"]) & set(second.answers.rows["seed"])
    return Comparison(arms, mean, len(measured), only_first, only_second, len(seeds))


def _name(arm: str, side: int) -> str:
    return f"{side} {arm}"


def _named(run: Run, side: int) -> pd.DataFrame:
    """Rows with arms named apart from the other run's."""
    exams = run.answers.rows[run.answers.rows["phase"] != "tuning"]
    return exams.assign(arm=[_name(str(arm), side) for arm in exams["arm"]])


def _changes(found: Replicates, first: str, second: str) -> dict[str, Change]:
    first, second = _name(first, 0), _name(second, 1)
    changes = {}
    for measure in measures("changes"):
        before, after = found.of(first, measure), found.of(second, measure)
        if before.value is not None and after.value is not None:
            less = found.estimate(measure.of(second) | measure.of(first, -1.0))
            changes[measure.name] = Change(measure, before, after, less)
    return changes


def _facts(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Facts that both asked: how the second run answered, beside what came of them in the first."""
    earlier = _usual(first)[[*FACT, "outcome", "tuned_says", "tuned_success"]]
    return earlier.merge(_usual(second), on=FACT, suffixes=("_first", ""))


def _usual(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per fact of an arm: of an isolated arm's models, that of the first whose outcome most of them share."""
    lines = transcript(rows)
    agreed = lines.groupby([*FACT, "outcome"])["copy"].transform("size")
    return lines.loc[agreed.sort_values(ascending=False, kind="stable").index].drop_duplicates(FACT).sort_index()
