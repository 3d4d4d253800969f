"""One line per arm: the figures that a study is run for, with the interval of the gap: what ``summary.json`` holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from indelible.numbers.answers import Answers, pooled
from indelible.numbers.measures import CONTROL_EDITOR, FACTORS, Measure, Rate, measures, require_columns

FIGURES = ("figure", "better", "downstream_before", "downstream_after", "reached", "seconds")
"""What a summary says of an arm's runs."""
RUN_COLUMNS = ("arm", *FACTORS, "seed", *FIGURES, "status")
SIZES = ("seeds", "n_edits", "n_intrinsic")


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
    nothing is edited: its figures about edits and its gap are None, and its retention is against base.

    Args:
        answers: of the study.
        runs: one row per arm × seed, with status "done", "partly" or "failed".

    Returns:
        Dictionaries with the keys `summary_keys`, of plain strings, ints, floats and None (never NaN).

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
