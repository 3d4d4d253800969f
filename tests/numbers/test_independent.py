"""The report's extra loss of edits at equal start against an analysis of covariance by statsmodels, on a real study.

``tests/data/quick.parquet`` holds answers of one run of the built-in quick study: two arms, two seeds, own and held-out
wordings, before and after tuning. Everything from there on is done here once more, with nothing of the package.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from indelible.numbers.alike.adjusting import extra_loss
from indelible.numbers.answers import Answers
from indelible.numbers.measures import MEASURES

STUDY = Path(__file__).parents[1] / "data" / "quick.parquet"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.read_parquet(STUDY)


def questions_of(rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Log-odds before and after tuning of what had succeeded before it, one question a line."""
    own = rows[rows["arm"] == arm]
    index = ["seed", "fact_set", "fact_id", "relation", "kind", "wording"]
    wide = own.pivot(index=index, columns="phase", values=["success", "log_prob"]).reset_index()
    wide = wide[wide["success", "edited"].astype(bool)]
    start, end = (wide["log_prob", phase].astype(float) for phase in ("edited", "tuned"))
    table = pd.DataFrame({name: wide[name] for name in index})
    odds = [np.log(np.exp(one) / (1 - np.exp(one))) for one in (start, end)]
    return table.assign(edited=(table["fact_set"] == "edited").astype(float), start=odds[0], loss=odds[0] - odds[1])


def within_both(table: pd.DataFrame) -> pd.DataFrame:
    """Starts between the third from below and the third from above of either set."""
    edited, other = (np.sort(table.loc[table["edited"] == flag, "start"]) for flag in (1, 0))
    return table[table["start"].between(max(edited[2], other[2]), min(edited[-3], other[-3]))]


@pytest.mark.parametrize("arm", ["memit", "memit-p3"])
def test_statsmodels_finds_the_same_extra_loss(rows: pd.DataFrame, arm: str) -> None:
    table = within_both(questions_of(rows, arm))
    assert table["edited"].sum() > 150 and (1 - table["edited"]).sum() > 300
    start = table["start"] - table.loc[table["edited"] == 1, "start"].mean()
    columns = {"edited": table["edited"], "start": start, "squared": start**2, "slope": start * table["edited"]}
    dummies = pd.get_dummies(table[["relation", "kind", "seed"]].astype(str), drop_first=True, dtype=float)
    design = sm.add_constant(pd.DataFrame(columns).join(dummies))
    robust = sm.OLS(table["loss"], design).fit(cov_type="HC3")
    groups = pd.factorize(table["fact_set"] + table["fact_id"])[0]
    clustered = sm.OLS(table["loss"], design).fit(cov_type="cluster", cov_kwds={"groups": groups})

    found = Answers(rows, draws=2_000).replicates.of(arm, MEASURES.get("excess_loss"))
    assert found.value == pytest.approx(robust.params["edited"], abs=0.02)
    edited, intrinsic = (part for _, part in Answers(rows).losses(arm).groupby("fact_set"))
    fit = extra_loss(edited, intrinsic)
    assert fit is not None and len(fit.questions) == len(table)
    by_fact = fit.questions.groupby(["fact_set", "fact_id"])["error"].sum()
    ours = float(np.sqrt((by_fact**2).sum()))
    # What facts add to the error: with their wordings together, somewhat more than if questions were independent; and
    # the jackknife's residuals are a little larger than plain ones.
    assert 0 <= ours / clustered.bse["edited"] - 1 < 0.06
    assert 0.8 < ours / robust.bse["edited"] < 1.6


def test_statsmodels_finds_the_same_difference_between_arms(rows: pd.DataFrame) -> None:
    """Edits with paraphrases against edits without: over the starts of both."""
    with_p, without = (
        part[part["edited"] == 1].assign(edited=flag)
        for flag, part in ((1.0, questions_of(rows, "memit-p3")), (0.0, questions_of(rows, "memit")))
    )
    table = within_both(pd.concat([with_p, without], ignore_index=True))
    start = table["start"] - table["start"].mean()
    columns = {"edited": table["edited"], "start": start, "squared": start**2, "slope": start * table["edited"]}
    dummies = pd.get_dummies(table[["relation", "kind", "seed"]].astype(str), drop_first=True, dtype=float)
    robust = sm.OLS(table["loss"], sm.add_constant(pd.DataFrame(columns).join(dummies))).fit(cov_type="HC3")
    measure = MEASURES.get("edits_loss_equal")
    found = Answers(rows, draws=200).replicates.estimate(measure.between("memit-p3", "memit"))
    assert found.value == pytest.approx(robust.params["edited"], abs=0.02)
