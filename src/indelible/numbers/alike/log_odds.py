"""How firmly an answer is held, as the log-odds of the whole object, and how much of that tuning took.

Success is a line drawn across a scale: what stood far above it can lose much and still succeed. Log-odds are that scale
itself, without an end that a firm answer could run into.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from indelible.numbers.measures import QUESTION, FactSet, is_control, require_columns

NEAREST_TO_ONE = 1e-6
"""Probabilities are kept so far below 1, where single precision tells them no longer apart."""
KINDS = ("prompt", "paraphrase")
"""A fact's own wording, and the held-out ones."""
LOSS_COLUMNS = [*QUESTION, "relation", "start", "loss"]


def log_odds(log_prob: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(p / (1 - p)) of natural logarithms of probabilities, right also where p is near 0 or 1."""
    below = np.minimum(log_prob, np.log1p(-NEAREST_TO_ONE))
    odds: NDArray[np.float64] = below - np.log(-np.expm1(below))
    return odds


def losses(rows: pd.DataFrame, outcome: pd.DataFrame) -> pd.DataFrame:
    """What tuning took from the log-odds of the questions that one arm knew before it.

    Both sets of facts are chosen by the same rule, looked at in the same model: a question counts, in its own wording
    or a held-out one, where it succeeded before tuning (`answers.outcomes`: in edited, and in base in the control) and
    was asked again after it. As the rule looks at nothing that tuning did, and at equal start asks the same of edits
    and of intrinsic facts, it favours neither.

    Returns:
        One row per question with the columns `LOSS_COLUMNS`: ``start``, its log-odds before tuning, and ``loss``, by
        how many nats they fell.
    """
    require_columns(rows, ["relation", "log_prob"], "table of answers")
    known = outcome.loc[(outcome["before"] == 1) & outcome["tuned"].notna()].reset_index()[QUESTION]
    known = known[known["kind"].isin(KINDS)]
    before = "base" if is_control(rows) else "edited"
    for name, phase in (("start", before), ("end", "tuned")):
        asked = rows.loc[rows["phase"] == phase, [*QUESTION, "log_prob", *(["relation"] if name == "start" else [])]]
        odds = log_odds(asked["log_prob"].to_numpy(np.float64))
        known = known.merge(asked.drop(columns="log_prob").assign(**{name: odds}), on=QUESTION, validate="one_to_one")
    known = known.assign(loss=known["start"] - known["end"])
    finite: pd.DataFrame = known.loc[np.isfinite(known["loss"]), LOSS_COLUMNS]
    words = ["fact_set", "fact_id", "kind", "relation"]
    return finite.astype(dict.fromkeys(words, str)).sort_values(QUESTION, ignore_index=True)


def part_of(questions: pd.DataFrame, fact_set: FactSet) -> pd.DataFrame:
    """Those about facts of one set."""
    return questions[questions["fact_set"] == fact_set]
