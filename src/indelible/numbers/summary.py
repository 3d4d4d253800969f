"""What a study says of its arms: one line per arm (``summary.json``), every effect on one line (``effects.csv``), and
what each factor changed on average over the grid.

Arms are compared when they differ in one factor alone (`arms`), and each with the control of its objective and tuner,
for what the edit did to intrinsic facts. Where arms were asked the same questions, the p of their difference is the
larger of the paired test's and the bootstrap's (`paired`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from indelible.numbers.answers import Answers, counts, pooled
from indelible.numbers.arms import pairs_of_arms, pairs_with_control
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import (
    CONTROL_EDITOR,
    FACTORS,
    MEASURES,
    PHASES,
    Loss,
    Measure,
    Rate,
    is_control,
    measures,
    require_columns,
)
from indelible.numbers.replicates import generator_of

FIGURES = ("figure", "better", "downstream_before", "downstream_after", "reached", "seconds")
"""What a summary says of an arm's runs."""
RUN_COLUMNS = ("arm", *FACTORS, "seed", *FIGURES, "status")
SIZES = ("seeds", "n_edits", "n_intrinsic")
EFFECT_COLUMNS = ("arm", "versus", "measure", "value", "low", "high", "p", "test", "facts", "seeds")
CONTRAST_COLUMNS = (
    *("editor", "factor", "level", "against", "measure", "value", "low", "high", "p", "pairs", "facts", "seeds"),
)
FEWEST_PAIRS = 2
"""Of arms: one pair is no mean."""


def summary_keys() -> list[str]:
    """The keys of a summary, in order: what the arm is, its sizes, the headline, its runs, and further measures."""
    shown = measures("summary")
    first = [key for measure in shown if "headline" in measure.shows for key in _keys(measure)]
    others = [key for measure in shown if "headline" not in measure.shows for key in _keys(measure)]
    return ["arm", *FACTORS, *SIZES, *first, *FIGURES, *others]


def _keys(measure: Measure) -> tuple[str, ...]:
    """A rate stands alone, as a fraction; a combination of rates with its interval."""
    name = measure.name
    return (name,) if isinstance(measure, Rate) else (name, f"{name}_low", f"{name}_high")


def summarise(answers: Answers, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """The summary of a study: one dictionary per arm, in order of appearance in the run table.

    Rates are fractions pooled over seeds, by the definitions in `measures`; None where a thing does not apply or was
    not reached. ``seeds`` counts the seeds that finished; ``n_edits`` and ``n_intrinsic`` are facts per seed;
    ``figure`` is the downstream figure that the arm's objective is judged by, ``better`` its direction,
    ``downstream_*`` its means over seeds; ``reached`` says whether every seed came to where it should stop
    (``stop_at``), None without such a rule; ``seconds`` is the time of all the arm's seeds together. In the control
    nothing is edited: its figures about edits and its gap are None, and its retention is against base. Values are plain
    strings, ints, floats and None (never NaN), under the keys `summary_keys`. The run table has one row per arm × seed,
    with status "done", "partly" or "failed".

    Raises:
        DataError: if a table lacks a column, or a question was answered twice.
    """
    require_columns(runs, RUN_COLUMNS, "table of runs")
    require_columns(answers.rows, ("arm", *FACTORS, "phase", "kind", "fact_set", "fact_id", "seed"), "table of answers")
    return [_summarise_arm(arm, answers, runs[runs["arm"] == arm]) for arm in answers.arms(runs)]


def _summarise_arm(arm: str, answers: Answers, runs: pd.DataFrame) -> dict[str, Any]:
    rows = answers.arm(arm)
    about = (runs if len(runs) else rows).iloc[0]
    summary: dict[str, Any] = dict.fromkeys(summary_keys())
    summary |= {"arm": arm} | {column: _plain(about[column]) for column in FACTORS}
    summary["seeds"] = int((runs["status"] == "done").sum())
    summary["n_edits"] = 0 if about["editor"] == CONTROL_EDITOR else _facts_per_seed(rows, "edited")
    summary["n_intrinsic"] = _facts_per_seed(rows, "intrinsic")
    for measure in measures("summary"):
        if isinstance(measure, Loss):
            found = answers.replicates.of(arm, measure)
            summary |= dict(zip(_keys(measure), (found.value, found.low, found.high), strict=True))
            continue
        weights = measure.of(arm)
        known = [rate for _, name in weights if (rate := pooled(answers.counts(arm, name))) is not None]
        if len(known) < len(weights):
            continue
        parts = (weight * rate for weight, rate in zip(weights.values(), known, strict=True))
        summary[measure.name] = measure.constant + sum(parts)
        if not isinstance(measure, Rate):
            estimate = answers.replicates.of(arm, measure)
            summary |= {f"{measure.name}_low": estimate.low, f"{measure.name}_high": estimate.high}
    for column in ("downstream_before", "downstream_after"):
        summary[column] = _plain(runs[column].astype("float64").mean())
    for column in ("figure", "better"):
        said = runs[column].dropna()
        summary[column] = None if said.empty else str(said.iloc[0])
    reached = runs["reached"].dropna()
    summary["reached"] = None if reached.empty else bool(reached.astype(bool).all())
    summary["seconds"] = _plain(runs["seconds"].astype("float64").sum(min_count=1))
    return summary


def effects_table(answers: Answers, runs: pd.DataFrame) -> pd.DataFrame:
    """All effects of a study: one row per arm × measure and per pair of arms × measure.

    Columns: ``arm``, ``versus`` (the arm that is subtracted; None for an arm by itself), ``measure`` (those that show
    among effects, and downstream_change: after less before, in the unit of the arm's downstream figure), ``value`` with
    its 95% interval ``low`` to ``high``, the two-sided ``p`` against zero with its ``test`` (not corrected for the
    number of rows), and how many distinct ``facts`` and ``seeds`` it rests on. Rows without a value are left out.

    Raises:
        DataError: if a table lacks a column, or a question was answered twice.
    """
    require_columns(runs, RUN_COLUMNS, "table of runs")
    shown = measures("effects")
    changes = {arm: _change(runs[runs["arm"] == arm]) for arm in answers.arms(runs)}
    lines = []
    for arm, change in changes.items():
        for measure in shown:
            found = answers.replicates.of(arm, measure)
            lines.append(_line(arm, None, measure.name, found, "bootstrap" if measure.differences else ""))
        lines.append(_line(arm, None, "downstream_change", _mean(change), "t over seeds"))
    for one, other, _ in pairs_of_arms(runs):
        arm, versus = one.name, other.name
        lines += _differences(arm, versus, shown, answers)
        if changes[arm].name == changes[versus].name:
            mean = _mean(changes[arm] - changes[versus])
            lines.append(_line(arm, versus, "downstream_change", mean, "t, paired by seed"))
    for arm, control in pairs_with_control(runs):
        lines += _differences(arm, control, [MEASURES.get("retention_intrinsic")], answers)
    return pd.DataFrame([line for line in lines if line["value"] is not None], columns=list(EFFECT_COLUMNS))


def contrasts_table(answers: Answers, runs: pd.DataFrame) -> pd.DataFrame:
    """What each factor changed, on average over the arms of one editor that differ in it alone.

    One row per editor, factor, pair of its levels and measure of the headline that tuning has a part in, in order of
    the arms: ``editor`` ("" where editors are compared); ``factor``; ``level`` and the one it is held ``against``;
    ``measure``; the mean difference ``value`` with its 95% interval and its ``p`` from the bootstrap; the number of
    ``pairs`` of arms that it is over, at least two; ``facts`` and ``seeds``.
    """
    pairs: dict[tuple[str, str, str, str], list[tuple[str, str]]] = {}
    for arm, other, factor in pairs_of_arms(runs):
        level, against = str(arm.factors[factor]), str(other.factors[factor])
        editor = "" if factor == "editor" else str(arm.factors["editor"])
        if (editor, factor, against, level) in pairs:
            pairs[editor, factor, against, level].append((other.name, arm.name))
        else:
            pairs.setdefault((editor, factor, level, against), []).append((arm.name, other.name))
    lines = []
    for measure in measures("effects"):
        for levels, compared in pairs.items() if "headline" in measure.shows else ():
            known = [pair for pair in compared if all(answers.replicates.has(arm, measure) for arm in pair)]
            if len(known) >= FEWEST_PAIRS:
                about = dict(zip(CONTRAST_COLUMNS, (*levels, measure.name), strict=False)) | {"pairs": len(known)}
                lines.append(about | answers.replicates.mean(measure, known).figures())
    return pd.DataFrame(lines, columns=list(CONTRAST_COLUMNS))


def further_table(answers: Answers, runs: pd.DataFrame) -> pd.DataFrame:
    """What was said to further kinds of questions: one row per arm, kind and set of facts that was asked; else empty.

    Columns: ``arm``, ``kind``, ``fact_set``, ``questions`` (the fewest of a phase); for each of base, edited and tuned
    the share that counts, with its 95% interval (``tuned_low``, ``tuned_high``), and the mean probability of what was
    asked for (``tuned_probability``); None or NaN where it was not asked.
    """
    lines = []
    for arm, rate in ((arm, rate) for arm in answers.arms(runs) for rate in measures("further")):
        rows = answers.arm(arm)
        if not isinstance(rate, Rate) or rows.empty or not rate.applies(is_control(rows)):
            continue
        asked = rows[(rows["kind"] == rate.kind) & (rows["fact_set"] == rate.fact_set)]
        if asked.empty:
            continue
        line: dict[str, Any] = {"arm": arm, "kind": rate.kind, "fact_set": rate.fact_set}
        line["questions"] = int(asked.groupby("phase", observed=True).size().min())
        for phase in PHASES:
            count = counts(answers.outcomes(arm, rate.criterion), replace(rate, hit=phase))
            found = answers.replicates.estimate_of((arm, rate.name), count)
            line |= {phase: found.value, f"{phase}_low": found.low, f"{phase}_high": found.high}
            line[f"{phase}_probability"] = asked.loc[asked["phase"] == phase, "probability"].mean()
        lines.append(line)
    return pd.DataFrame(lines)


def _differences(arm: str, versus: str, shown: Sequence[Measure], answers: Answers) -> Iterator[dict[str, Any]]:
    """One arm less the other. What is 1 less a rate has no line of its own: the rate's says as much."""
    for measure in shown:
        if not measure.constant:
            generator = generator_of(answers.replicates.seed, "permutation", arm, versus, measure.name)
            yield _line(arm, versus, measure.name, *answers.difference(arm, versus, measure, generator=generator))


def _line(arm: str, versus: str | None, measure: str, found: Estimate, test: str) -> dict[str, Any]:
    """One row; ``test`` says what the p is of, and nothing where a test against zero would say nothing."""
    found = found if test else replace(found, p=None)
    test = "" if found.p is None else test
    return {"arm": arm, "versus": versus, "measure": measure, "test": test} | found.figures()


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


def _facts_per_seed(rows: pd.DataFrame, fact_set: str) -> int | None:
    """Facts of a set in a seed (the most, should seeds differ); None when the arm never got to ask any."""
    asked = rows[(rows["fact_set"] == fact_set) & (rows["kind"] == "prompt")]
    return None if asked.empty else int(asked.groupby("seed")["fact_id"].nunique().max())


def _plain(value: Any) -> Any:
    """A scalar out of a frame as JSON knows it: str, bool, int, finite float or None."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or pd.isna(value):
        return None
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if isinstance(value, (str, bool, int)) else str(value)
