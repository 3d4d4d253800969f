"""Rates from tidy rows: what an edit achieved, what it disturbed, and what fine-tuning left of it.

The vocabulary of the whole project is defined here, once:

- *success*: the criterion holds; by default, greedy free generation starts with the whole target.
- *phases*: base (before the edit), edited (after it), tuned (after fine-tuning).
- *retention* of a set = successes in *tuned* among those that succeeded in *edited* (for intrinsic facts: also among
  those that succeeded in *edited*, and separately against *base*, so that damage by the edit is not blamed on tuning).
- *edit flip ratio* = 1 − retention. *retention gap* = intrinsic retention − edited retention.
- *control*: the unedited model fine-tuned alike, so that forgetting without any edit is known. It has no edited phase,
  so that what it knew before tuning is what it knew in base.

Every rate is a ratio of two sums over facts (hits over asked), pooled over seeds. A question counts as asked only when
it was answered in each phase that the rate compares, so that a step that failed is missing and not forgotten. The sums
stay apart per fact, because intervals resample facts. Functions here are pure and vectorised: frames in, frames out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import pandas as pd

from indelible.errors import DataError

CONTROL_EDITOR = "none"
QUESTION = ["seed", "copy", "fact_set", "fact_id", "kind", "wording"]
"""What tells one question of an arm from another; ``copy`` numbers the models of an isolated arm, else it is 0."""

Criterion = Literal["success", "first_token"]
Factor = Literal["editor", "paraphrases", "objective", "tuner", "mask"]
FACTORS: tuple[Factor, ...] = get_args(Factor)
"""What an arm is called by."""
Moment = Literal["base", "edited", "before", "tuned"]


@dataclass(frozen=True)
class Measure:
    """One rate: which questions, what counts, when it must hold, and among which of them.

    Attributes:
        fact_set: "edited" or "intrinsic"; neighbours belong to the edited set.
        kind: "prompt", "paraphrase" (held-out wordings) or "neighbour".
        hit: the moment at which the criterion must hold for a question to be a hit.
        among: only questions that met the criterion at this moment are asked about; None for all.
            "before" is the moment before tuning: edited, or base in the control.
        criterion: the column that says whether an answer counts.
    """

    fact_set: Literal["edited", "intrinsic"]
    kind: Literal["prompt", "paraphrase", "neighbour"]
    hit: Moment
    among: Moment | None = None
    criterion: Criterion = "success"


MEASURES = MappingProxyType(
    {
        "edit_success": Measure("edited", "prompt", "edited"),
        "edit_success_first_token": Measure("edited", "prompt", "edited", criterion="first_token"),
        "paraphrase_success": Measure("edited", "paraphrase", "edited"),
        "locality": Measure("edited", "neighbour", "edited", among="base"),
        "retention_edited": Measure("edited", "prompt", "tuned", among="before"),
        "retention_intrinsic": Measure("intrinsic", "prompt", "tuned", among="before"),
        "retention_paraphrase": Measure("edited", "paraphrase", "tuned", among="before"),
        "retention_intrinsic_paraphrase": Measure("intrinsic", "paraphrase", "tuned", among="before"),
        "retention_neighbour": Measure("edited", "neighbour", "tuned", among="before"),
        "retention_intrinsic_base": Measure("intrinsic", "prompt", "tuned", among="base"),
        "retention_edited_first_token": Measure("edited", "prompt", "tuned", among="before", criterion="first_token"),
    }
)
"""Every rate that a summary reports, by its key there."""

GAP_RATES = MappingProxyType(
    {
        "gap": ("retention_intrinsic", "retention_edited"),
        "gap_base": ("retention_intrinsic_base", "retention_edited"),
    }
)
"""Gap -> the rate that is subtracted from, and the rate that is subtracted."""


def require_columns(frame: pd.DataFrame, columns: Iterable[str], what: str) -> None:
    """Check that a table has the columns that are about to be read.

    Raises:
        DataError: naming the missing columns.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise DataError(
            f"The {what} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}.",
            "Was it written by another version, or cut by hand? Run the study again.",
        )


def is_control(rows: pd.DataFrame) -> bool:
    """Whether one arm's rows are those of the control: no editor touched its model."""
    return not rows.empty and bool((rows["editor"] == CONTROL_EDITOR).all())


def outcomes(rows: pd.DataFrame, criterion: Criterion = "success") -> pd.DataFrame:
    """One arm's rows, turned so that each question has what happened to it on one line.

    Args:
        rows: tidy rows of *one* arm (any seeds, any phases; points of the curve are left aside).
        criterion: the column that says whether an answer counts.

    Returns:
        A frame indexed by `QUESTION` (sorted) with the float columns base, edited, tuned
        and before: 1 where the criterion holds, 0 where not, NaN where the question was not asked. ``before`` is
        edited, and base in the control.

    Raises:
        DataError: if a column is missing, or a question was answered twice in one phase.
    """
    require_columns(rows, ["editor", "phase", *QUESTION, criterion], "table of answers")
    kept = rows.loc[rows["phase"].isin(["base", "edited", "tuned"]), [*QUESTION, "phase", criterion]]
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
    wide = wide.reindex(columns=["base", "edited", "tuned"]).astype("float64").sort_index()
    wide.columns.name = None
    return wide.assign(before=wide["base"] if is_control(rows) else wide["edited"])


def counts(outcome: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Hits and questions asked, per model and fact.

    Args:
        outcome: what `outcomes` returned for the arm, with the measure's own criterion.
        measure: the rate to count for.

    Returns:
        A frame indexed by seed, copy, fact_id with the integer columns hits and asked. A fact whose questions were
        answered but are outside the denominator stays, with asked 0: it belongs to the sample that intervals redraw. A
        fact that was never asked (its seed failed earlier) does not.
    """
    levels = outcome.index
    chosen = outcome[
        (levels.get_level_values("fact_set") == measure.fact_set)
        & (levels.get_level_values("kind") == measure.kind)
        & outcome[measure.hit].notna()
    ]
    asked = pd.Series(True, index=chosen.index)
    if measure.among is not None:
        chosen = chosen[chosen[measure.among].notna()]
        asked = chosen[measure.among] == 1
    hits = asked & (chosen[measure.hit] == 1)
    table = pd.DataFrame({"hits": hits.astype("int64"), "asked": asked.astype("int64")})
    return table.groupby(level=["seed", "copy", "fact_id"], observed=True).sum()


def rate(count: pd.DataFrame) -> float | None:
    """Hits over asked, pooled over facts and seeds; None when nothing was asked."""
    asked = int(count["asked"].sum())
    return int(count["hits"].sum()) / asked if asked else None


def arm_counts(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Counts per fact of every measure that applies to one arm.

    Args:
        rows: tidy rows of one arm.

    Returns:
        Measure name -> frame as from `counts`. The control has none of the measures of the edited set, for nothing was
        edited in it.
    """
    by_criterion = {criterion: outcomes(rows, criterion) for criterion in ("success", "first_token")}
    return {
        name: counts(by_criterion[measure.criterion], measure)
        for name, measure in MEASURES.items()
        if applies(measure, rows)
    }


def applies(measure: Measure, rows: pd.DataFrame) -> bool:
    """Whether an arm has a measure, given its rows: a control has none of the edited set."""
    return measure.fact_set != "edited" or not is_control(rows)


def flip_ratio(retention: float | None) -> float | None:
    """*Edit flip ratio* = 1 − retention; None where retention is."""
    return None if retention is None else 1.0 - retention


def gap(retention_intrinsic: float | None, retention_edited: float | None) -> float | None:
    """*Retention gap* = intrinsic retention − edited retention; None where either is.

    Positive when edits were lost more often than facts from pre-training.
    """
    if retention_intrinsic is None or retention_edited is None:
        return None
    return retention_intrinsic - retention_edited
