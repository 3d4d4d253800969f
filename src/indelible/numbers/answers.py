"""A study's answers, arm by arm, with what is counted from them counted once.

Summary, claims, effects and figures all begin with the same step: each question's answers before and after tuning on
one line, and hits over questions asked for each fact. For a grid of dozens of arms that step is half of the work, so
whoever writes a whole report makes one of these and passes it on in place of the rows.
"""

from __future__ import annotations

import pandas as pd

from indelible.numbers.measures import MEASURES, Criterion, applies, counts, outcomes


class Answers:
    """Rows of a study and what was counted from them so far.

    Args:
        rows: tidy rows, as in facts.parquet.

    Attributes:
        rows: the same.
    """

    def __init__(self, rows: pd.DataFrame) -> None:
        self.rows = rows
        self._of_arm = (
            {str(name): part for name, part in rows.groupby("arm", sort=False, observed=True)} if len(rows) else {}
        )
        self._coded: dict[str, pd.DataFrame] | None = None
        self._outcomes: dict[tuple[str, Criterion], pd.DataFrame] = {}
        self._counts: dict[tuple[str, str], pd.DataFrame] = {}

    @classmethod
    def of(cls, rows: pd.DataFrame | Answers) -> Answers:
        """Answers of rows; those that are answers already, as they are."""
        return rows if isinstance(rows, Answers) else cls(rows)

    def __contains__(self, arm: object) -> bool:
        return arm in self._of_arm

    def arm(self, name: str) -> pd.DataFrame:
        """The rows of an arm; none for one that never got to ask."""
        return self._of_arm.get(name, self.rows.iloc[:0])

    def _coded_of(self, arm: str) -> pd.DataFrame:
        """The rows of an arm with repeated words as categories, which are told apart once and not in every arm."""
        if self._coded is None:
            words = [name for name in ("phase", "fact_set", "fact_id", "kind") if name in self.rows]
            coded = self.rows.astype(dict.fromkeys(words, "category"))
            self._coded = {str(name): part for name, part in coded.groupby("arm", sort=False, observed=True)}
        return self._coded.get(arm, self.rows.iloc[:0])

    def outcomes(self, arm: str, criterion: Criterion = "success") -> pd.DataFrame:
        """`metrics.outcomes` of an arm."""
        if (arm, criterion) not in self._outcomes:
            self._outcomes[arm, criterion] = outcomes(self._coded_of(arm), criterion)
        return self._outcomes[arm, criterion]

    def counts(self, arm: str, measure: str) -> pd.DataFrame | None:
        """`metrics.counts` of an arm for a key of `metrics.MEASURES`; None where the measure does not apply to it."""
        if not applies(MEASURES[measure], self.arm(arm)):
            return None
        if (arm, measure) not in self._counts:
            self._counts[arm, measure] = counts(self.outcomes(arm, MEASURES[measure].criterion), MEASURES[measure])
        return self._counts[arm, measure]
