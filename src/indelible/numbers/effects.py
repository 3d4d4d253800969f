"""Every effect of a study on one line each: measures of the arms, and differences between arms.

Arms are compared when they differ in exactly one of editor, paraphrases, objective, tuner and mask, since only then the
difference has one cause; and each is compared with the control of its objective and tuner, for what the edit did to
intrinsic facts. Where arms were asked the same questions, the p of their difference is the larger of the paired test's
and the bootstrap's (`paired`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from indelible.numbers.answers import Answers
from indelible.numbers.arms import arms_of, factor_between
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import CONTROL_EDITOR, FACTORS, MEASURES, Measure, Rate, measures, require_columns
from indelible.numbers.replicates import generator_of
from indelible.numbers.summary import RUN_COLUMNS

COLUMNS = ("arm", "versus", "measure", "value", "low", "high", "p", "test", "facts", "seeds")
Line = tuple[str, str | None, str, Estimate, str]
"""Arm, the arm that is subtracted, measure, estimate, and the test that its p is of."""


def effects_table(answers: Answers, runs: pd.DataFrame) -> pd.DataFrame:
    """All effects of a study.

    Returns:
        One row per arm × measure and per pair of arms × measure: ``arm``, ``versus`` (the arm that is subtracted; None
        for an arm by itself), ``measure`` (those that show among effects, and downstream_change: after less before, in
        the unit of the arm's downstream figure), ``value`` with its 95% interval ``low`` to ``high``, the two-sided
        ``p`` against zero with its ``test`` (not corrected for the number of rows), and how many ``facts`` (times
        seeds) and ``seeds`` it rests on. Rows without a value are left out.

    Raises:
        DataError: if a table lacks a column, or a question was answered twice.
    """
    require_columns(runs, RUN_COLUMNS, "table of runs")
    shown = measures("effects")
    changes = {arm: _change(runs[runs["arm"] == arm]) for arm in answers.arms(runs)}
    lines: list[Line] = []
    for arm, change in changes.items():
        for measure in shown:
            test = "bootstrap" if measure.differences else ""
            lines.append((arm, None, measure.name, answers.replicates.of(arm, measure), test))
        lines.append((arm, None, "downstream_change", _mean(change), "t over seeds"))
    for arm, versus in pairs_of_arms(runs):
        lines += _differences(arm, versus, shown, answers)
        if changes[arm].name == changes[versus].name:
            mean = _mean(changes[arm] - changes[versus])
            lines.append((arm, versus, "downstream_change", mean, "t, paired by seed"))
    for arm, control in pairs_with_control(runs):
        lines += _differences(arm, control, [MEASURES.get("retention_intrinsic")], answers)
    return pd.DataFrame([_row(line) for line in lines if line[3].value is not None], columns=list(COLUMNS))


def pairs_of_arms(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Arms with an edit that differ in one factor alone (`arms.comparable`), (later, earlier) in order of the table."""
    for first, second in combinations(arms_of(runs), 2):
        if factor_between(first, second) is not None:
            yield second.name, first.name


def pairs_with_control(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Each arm with an edit and the control of its objective and tuner: that of its mask, else the unmasked one."""
    factors = runs.drop_duplicates("arm").set_index("arm")[list(FACTORS)]
    controls = factors[factors["editor"] == CONTROL_EDITOR]
    for arm, own in factors[factors["editor"] != CONTROL_EDITOR].iterrows():
        alike = controls[(controls["objective"] == own["objective"]) & (controls["tuner"] == own["tuner"])]
        for mask in dict.fromkeys((own["mask"], "none")):
            found = alike.index[alike["mask"] == mask]
            if len(found):
                yield str(arm), str(found[0])
                break


def _differences(arm: str, versus: str, shown: Sequence[Measure], answers: Answers) -> Iterator[Line]:
    """One arm less the other. What is 1 less a rate has no line of its own: the rate's says as much."""
    for measure in shown:
        if measure.differences or isinstance(measure, Rate):
            generator = generator_of(answers.replicates.seed, "permutation", arm, versus, measure.name)
            yield arm, versus, measure.name, *answers.difference(arm, versus, measure, generator=generator)


def _row(line: Line) -> tuple[object, ...]:
    arm, versus, measure, found, test = line
    p = found.p if test else None
    test = test if p is not None else ""
    return arm, versus, measure, found.value, found.low, found.high, p, test, found.facts, found.seeds


def _change(runs: pd.DataFrame) -> pd.Series:
    """The change of one arm's downstream figure by seed; the series has the name of the figure."""
    figures = runs["figure"].dropna()
    change = runs["downstream_after"].astype("float64") - runs["downstream_before"].astype("float64")
    return pd.Series(change.to_numpy(), index=runs["seed"], name=str(figures.iloc[0]) if len(figures) else None)


def _mean(changes: pd.Series) -> Estimate:
    """The mean over seeds with Student's interval; without an interval where there is one seed."""
    values = changes.dropna().to_numpy(dtype=np.float64)
    if not len(values):
        return Estimate()
    mean, seeds = float(values.mean()), len(values)
    error = float(values.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else 0.0
    if not error:
        return Estimate(mean, seeds=seeds)
    half = float(stats.t.ppf(0.975, seeds - 1)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, seeds - 1)), seeds=seeds)
