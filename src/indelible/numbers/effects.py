"""Every effect of a study on one line each: rates and gaps of the arms, and differences between arms.

Arms are compared when they differ in exactly one of editor, paraphrases, objective, tuner and mask, since only then the
difference has one cause; and each is compared with the control of its objective and tuner, for what the edit did to
intrinsic facts. Where arms were asked the same questions, the p of their difference is the larger of the paired test's
and the bootstrap's (`paired`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from indelible.numbers.answers import Answers
from indelible.numbers.arms import arms_of, factor_between
from indelible.numbers.bootstrap import Interval
from indelible.numbers.matching import MatchedGap, matched_gap, matched_replicates
from indelible.numbers.measures import CONTROL_EDITOR, GAP_RATES, MEASURES, require_columns
from indelible.numbers.paired import Hits, compare, hits_among, with_bootstrap
from indelible.numbers.replicates import Effect, RateKey, Replicates, generator_of, replicate
from indelible.numbers.summary import ARM_COLUMNS, RUN_COLUMNS, arm_names

RATES = (
    "retention_edited",
    "retention_intrinsic",
    "retention_intrinsic_base",
    "retention_paraphrase",
    "retention_neighbour",
)
COLUMNS = ("arm", "versus", "measure", "value", "low", "high", "p", "test", "facts", "seeds")

Line = tuple[str, str | None, str, float | None, float | None, float | None, float | None, str, int, int]


def effects_table(
    rows: pd.DataFrame | Answers, runs: pd.DataFrame, *, draws: int = 10_000, seed: int = 0
) -> pd.DataFrame:
    """All effects of a study.

    Args:
        rows: tidy rows of the study, or the answers made of them.
        runs: its run table.
        draws: bootstrap draws, 39 or more.
        seed: of the bootstrap and of permutations.

    Returns:
        One row per arm × measure and per pair of arms × measure: ``arm``, ``versus`` (the arm that is subtracted; None
        for an arm by itself), ``measure`` (the rates of `RATES`, flip_ratio, the gaps of `GAP_RATES`, matched_gap, and
        downstream_change: after less before, in the unit of the arm's downstream figure), ``value`` with its 95%
        interval ``low`` to ``high``, the two-sided ``p`` against zero with its ``test`` (not corrected for the number
        of rows), and how many ``facts`` (times seeds) and ``seeds`` it rests on. Rows without a value are left out.

    Raises:
        DataError: if a table lacks a column, or a question was answered twice.
    """
    require_columns(runs, RUN_COLUMNS, "table of runs")
    answers = Answers.of(rows)
    arms = arm_names(answers.rows, runs)
    joint = replicate(answers, arms, RATES, draws=draws, seed=seed)
    gaps = {
        arm: gap
        for arm in arms
        if arm in answers and (gap := matched_gap(answers.arm(arm), draws=draws, seed=seed)).effect.value is not None
    }
    changes = {arm: _change(runs[runs["arm"] == arm]) for arm in arms}
    lines = [line for arm in arms for line in _of_arm(arm, joint, gaps, changes[arm])]
    asked = {key: hits_among(answers.outcomes(key[0]), MEASURES[key[1]]) for key in joint.samples}
    matched = matched_replicates(list(gaps.values())) if gaps else None
    for arm, versus in pairs_of_arms(runs):
        lines += _rate_differences(arm, versus, RATES, joint, asked, seed)
        lines += _gap_differences(arm, versus, joint, gaps, matched)
        if changes[arm].name == changes[versus].name:
            lines.append(_downstream(arm, versus, changes[arm] - changes[versus], "t, paired by seed"))
    for arm, control in pairs_with_control(runs):
        lines += _rate_differences(arm, control, ("retention_intrinsic",), joint, asked, seed)
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    return table[table["value"].notna()].reset_index(drop=True)


def pairs_of_arms(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Arms with an edit that differ in one factor alone (`arms.comparable`), (later, earlier) in order of the table."""
    for first, second in combinations(arms_of(runs), 2):
        if factor_between(first, second) is not None:
            yield second.name, first.name


def pairs_with_control(runs: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Each arm with an edit and the control of its objective and tuner: that of its mask, else the unmasked one."""
    factors = _factors(runs)
    controls = factors[factors["editor"] == CONTROL_EDITOR]
    for arm, own in factors[factors["editor"] != CONTROL_EDITOR].iterrows():
        alike = controls[(controls["objective"] == own["objective"]) & (controls["tuner"] == own["tuner"])]
        for mask in dict.fromkeys((own["mask"], "none")):
            found = alike.index[alike["mask"] == mask]
            if len(found):
                yield str(arm), str(found[0])
                break


def _factors(runs: pd.DataFrame) -> pd.DataFrame:
    return runs.drop_duplicates("arm").set_index("arm")[list(ARM_COLUMNS)]


def _of_arm(arm: str, joint: Replicates, gaps: Mapping[str, MatchedGap], change: pd.Series) -> Iterator[Line]:
    for rate in RATES:
        effect = joint.effect({(arm, rate): 1.0})
        yield _line(arm, None, rate, effect, None, "")
        if rate == "retention_edited" and effect.value is not None:
            interval = None if effect.interval is None else Interval(1 - effect.interval.high, 1 - effect.interval.low)
            flipped = Effect(1 - effect.value, interval, None, effect.facts, effect.seeds)
            yield _line(arm, None, "flip_ratio", flipped, None, "")
    for name in GAP_RATES:
        effect = joint.effect(_gap_weights(arm, name, 1.0))
        yield _line(arm, None, name, effect, effect.p, "bootstrap")
    if arm in gaps:
        yield _line(arm, None, "matched_gap", gaps[arm].effect, gaps[arm].effect.p, "bootstrap")
    yield _downstream(arm, None, change, "t over seeds")


def _rate_differences(
    arm: str, versus: str, rates: tuple[str, ...], joint: Replicates, asked: Mapping[RateKey, Hits], seed: int
) -> Iterator[Line]:
    for rate in rates:
        effect = joint.effect({(arm, rate): 1.0, (versus, rate): -1.0})
        if effect.value is not None:
            generator = generator_of(seed, "permutation", arm, versus, rate)
            test = with_bootstrap(compare(asked[arm, rate], asked[versus, rate], generator=generator), effect.p)
            yield _line(arm, versus, rate, effect, test.p, test.test)


def _gap_differences(
    arm: str, versus: str, joint: Replicates, gaps: Mapping[str, MatchedGap], matched: Replicates | None
) -> Iterator[Line]:
    for name in GAP_RATES:
        effect = joint.effect(_gap_weights(arm, name, 1.0) | _gap_weights(versus, name, -1.0))
        yield _line(arm, versus, name, effect, effect.p, "bootstrap")
    if matched is not None and arm in gaps and versus in gaps:
        less = {key: -weight for key, weight in gaps[versus].weights.items()}
        effect = matched.effect({**gaps[arm].weights, **less})
        yield _line(arm, versus, "matched_gap", effect, effect.p, "bootstrap")


def _gap_weights(arm: str, name: str, sign: float) -> dict[RateKey, float]:
    from_, less = GAP_RATES[name]
    return {(arm, from_): sign, (arm, less): -sign}


def _line(arm: str, versus: str | None, measure: str, effect: Effect, p: float | None, test: str) -> Line:
    low, high = (None, None) if effect.interval is None else (effect.interval.low, effect.interval.high)
    return arm, versus, measure, effect.value, low, high, p, test if p is not None else "", effect.facts, effect.seeds


def _change(runs: pd.DataFrame) -> pd.Series:
    """The change of one arm's downstream figure by seed; the series has the name of the figure."""
    figures = runs["figure"].dropna()
    change = runs["downstream_after"].astype("float64") - runs["downstream_before"].astype("float64")
    return pd.Series(change.to_numpy(), index=runs["seed"], name=str(figures.iloc[0]) if len(figures) else None)


def _downstream(arm: str, versus: str | None, changes: pd.Series, test: str) -> Line:
    """The mean over seeds with Student's interval; without an interval where there is one seed."""
    values = changes.dropna().to_numpy(dtype=np.float64)
    if not len(values):
        return arm, versus, "downstream_change", None, None, None, None, "", 0, 0
    mean, seeds = float(values.mean()), len(values)
    error = float(values.std(ddof=1) / np.sqrt(seeds)) if seeds > 1 else 0.0
    if not error:
        return arm, versus, "downstream_change", mean, None, None, None, "", 0, seeds
    half = float(stats.t.ppf(0.975, seeds - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, seeds - 1))
    return arm, versus, "downstream_change", mean, mean - half, mean + half, p, test, 0, seeds
