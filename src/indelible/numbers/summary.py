"""One line per arm: the figures that a study is run for, with the interval of the gap.

`summarise` returns what `summary.json` holds.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pandas as pd

from indelible.numbers.answers import Answers
from indelible.numbers.measures import CONTROL_EDITOR, MEASURES, gap, rate, require_columns
from indelible.numbers.replicates import Replicates, replicate

ARM_COLUMNS = ("editor", "paraphrases", "objective", "tuner", "mask")
RUN_COLUMNS = (
    "arm",
    *ARM_COLUMNS,
    "seed",
    "figure",
    "better",
    "downstream_before",
    "downstream_after",
    "reached",
    "seconds",
    "status",
)
KEYS = (
    "arm",
    *ARM_COLUMNS,
    "seeds",
    "n_edits",
    "n_intrinsic",
    "edit_success",
    "edit_success_first_token",
    "paraphrase_success",
    "locality",
    "retention_edited",
    "retention_intrinsic",
    "gap",
    "gap_low",
    "gap_high",
    "figure",
    "better",
    "downstream_before",
    "downstream_after",
    "reached",
    "seconds",
    "retention_paraphrase",
    "retention_intrinsic_paraphrase",
    "retention_intrinsic_base",
    "retention_edited_first_token",
    "retention_neighbour",
)
"""The keys of a summary, in order."""
GAP = {"retention_intrinsic": 1.0, "retention_edited": -1.0}
"""The rates that the gap is made of, with their signs."""


def arm_names(rows: pd.DataFrame, runs: pd.DataFrame) -> list[str]:
    """The arms in order of appearance in the run table, then any that only the rows know, by name."""
    planned = [str(name) for name in runs["arm"].drop_duplicates()]
    return planned + sorted({str(name) for name in rows["arm"].unique()} - set(planned))


def arm_generator(seed: int, arm: str) -> np.random.Generator:
    """A generator for one arm, so that an arm's intervals don't depend on which other arms stand beside it."""
    return np.random.default_rng([seed, zlib.crc32(arm.encode())])


def summarise(
    rows: pd.DataFrame | Answers, runs: pd.DataFrame, *, draws: int = 10_000, seed: int = 0
) -> list[dict[str, Any]]:
    """The summary of a study: one dictionary per arm, in order of appearance in the run table.

    Rates are fractions pooled over seeds, by the definitions in `metrics`; None where a thing does not apply or was not
    reached. ``seeds`` counts the seeds that finished; ``n_edits`` and ``n_intrinsic`` are facts per seed; ``figure`` is
    the downstream figure that the arm's objective is judged by, ``better`` its direction, ``downstream_*`` its means
    over seeds; ``reached`` says whether every seed came to where it should stop (``stop_at``), None without such a
    rule; ``seconds`` is the time of all the arm's seeds together. In the control nothing is edited: its figures about
    edits and its gap are None, and its retention is against base.

    Args:
        rows: tidy rows, one per arm × seed × phase × step × question, or the answers made of them.
        runs: one row per arm × seed, with status "done", "partly" or "failed".
        draws: bootstrap draws for the interval of the gap.
        seed: seed of the bootstrap; the same seed gives the same interval.

    Returns:
        Dictionaries with the keys `KEYS`, of plain strings, ints, floats and None (never NaN).

    Raises:
        DataError: if a table lacks a column, or a question was answered twice.
    """
    require_columns(runs, RUN_COLUMNS, "table of runs")
    answers = Answers.of(rows)
    require_columns(
        answers.rows, ("arm", *ARM_COLUMNS, "phase", "kind", "fact_set", "fact_id", "seed"), "table of answers"
    )
    arms = arm_names(answers.rows, runs)
    joint = replicate(answers, arms, tuple(GAP), draws=draws, seed=seed)
    return [_summarise_arm(arm, answers, runs[runs["arm"] == arm], joint) for arm in arms]


def _summarise_arm(arm: str, answers: Answers, runs: pd.DataFrame, joint: Replicates) -> dict[str, Any]:
    rows = answers.arm(arm)
    counted = {name: count for name in MEASURES if (count := answers.counts(arm, name)) is not None}
    rates = {name: rate(count) for name, count in counted.items()}
    about = (runs if len(runs) else rows).iloc[0]
    summary: dict[str, Any] = dict.fromkeys(KEYS)
    summary.update({column: _plain(about[column]) for column in ARM_COLUMNS}, arm=arm)
    summary.update(rates)
    summary["seeds"] = int((runs["status"] == "done").sum())
    control = about["editor"] == CONTROL_EDITOR
    summary["n_edits"] = 0 if control else _facts_per_seed(rows, "edited")
    summary["n_intrinsic"] = _facts_per_seed(rows, "intrinsic")
    summary["gap"] = gap(rates.get("retention_intrinsic"), rates.get("retention_edited"))
    if summary["gap"] is not None:
        interval = joint.effect({(arm, measure): weight for measure, weight in GAP.items()}).interval
        if interval is not None:
            summary["gap_low"], summary["gap_high"] = interval.low, interval.high
    for column in ("downstream_before", "downstream_after"):
        summary[column] = _plain(runs[column].astype("float64").mean())
    for column in ("figure", "better"):
        known = runs[column].dropna()
        summary[column] = None if known.empty else str(known.iloc[0])
    reached = runs["reached"].dropna()
    summary["reached"] = None if reached.empty else bool(reached.astype(bool).all())
    seconds = runs["seconds"].astype("float64")
    summary["seconds"] = _plain(seconds.sum(min_count=1))
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
