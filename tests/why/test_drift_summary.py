"""Means of drift: counted by hand, with intervals that follow the scatter of facts and seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from indelible.errors import DataError
from indelible.numbers.words import MISSING
from indelible.report.exhibits.explained import drift_table
from indelible.why.drift_summary import COLUMNS, drift_summary


def rows(cosines: dict[tuple[int, str], float], quantity: str = "key", layer: float | None = 3) -> pd.DataFrame:
    """One row per seed and fact."""
    return pd.DataFrame(
        [("memit", seed, fact, quantity, layer, cosine, 2 * cosine - 1) for (seed, fact), cosine in cosines.items()],
        columns=["arm", "seed", "fact_id", "quantity", "layer", "cosine", "norm_change"],
    ).astype({"layer": "float64"})


def test_means_are_over_all_facts_of_all_seeds() -> None:
    found = drift_summary(rows({(0, "a"): 0.9, (0, "b"): 0.8, (1, "b"): 0.4}))
    assert tuple(found.columns) == COLUMNS
    (line,) = found.to_dict("records")
    assert line["cosine"] == pytest.approx(0.7) and line["norm_change"] == pytest.approx(0.4)
    assert (line["facts"], line["seeds"], line["layer"]) == (3, 2, 3)
    assert 0.4 <= line["low"] < 0.7 < line["high"] <= 0.9


def test_the_interval_is_that_of_a_mean() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(0.5, 0.1, 400)
    (line,) = drift_summary(rows({(0, f"f{n}"): value for n, value in enumerate(values)})).to_dict("records")
    error = 1.96 * values.std() / 20
    assert line["low"] == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert line["high"] == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_quantities_go_from_the_key_to_the_answer_and_layers_upwards() -> None:
    facts = {(0, "a"): 0.5, (0, "b"): 0.5}
    table = pd.concat(
        [rows(facts, "state", None), rows(facts, "output"), rows(facts, "key", 5), rows(facts, "key", 4)],
        ignore_index=True,
    )
    found = drift_summary(table)
    assert found["quantity"].tolist() == ["key", "key", "output", "state"]
    assert found["layer"].tolist()[:3] == [4, 5, 3] and np.isnan(found["layer"].iloc[3])
    assert found[["low", "high"]].to_numpy() == pytest.approx(0.5), "what does not scatter has no width"
    shown = drift_table(found).to_numpy().tolist()
    assert shown[0][1:] == ["key k", "4", "0.500 [0.500, 0.500]", "+0.0%"] and shown[3][2] == MISSING


def test_a_fact_with_two_projections_in_a_layer_counts_once() -> None:
    twice = pd.concat([rows({(0, "a"): 0.2, (0, "b"): 0.6}), rows({(0, "a"): 0.4, (0, "b"): 0.8})], ignore_index=True)
    (line,) = drift_summary(twice).to_dict("records")
    assert line["cosine"] == pytest.approx(0.5) and line["facts"] == 2


def test_a_fact_without_one_of_its_cosines_counts_as_much_as_others() -> None:
    first = rows({(0, "a"): 0.2, (0, "b"): 0.6, (1, "b"): np.nan})
    found = drift_summary(pd.concat([first, rows({(0, "a"): np.nan, (0, "b"): 0.8})], ignore_index=True))
    (line,) = found.to_dict("records")
    assert line["cosine"] == pytest.approx((0.2 + 0.7) / 2) and line["norm_change"] == pytest.approx(-0.1)
    assert (line["facts"], line["seeds"]) == (2, 1) and line["low"] < 0.45 < line["high"]


def test_where_there_is_no_cosine_there_is_no_figure() -> None:
    found = drift_summary(rows({(0, "a"): np.nan, (1, "b"): np.nan}))
    assert found[["cosine", "low", "high", "norm_change"]].isna().all(axis=None)
    assert found[["facts", "seeds"]].eq(0).all(axis=None)
    assert drift_table(found).iloc[0, 3:].tolist() == [MISSING, MISSING]
    assert drift_summary(rows({(0, "a"): 0.5}).iloc[:0]).empty


@pytest.mark.parametrize(
    ("change", "shown"),
    [(0.0123, "+1.2%"), (-0.0123, "\N{MINUS SIGN}1.2%"), (-1e-9, "+0.0%"), (1.004, "+100.4%")],
)
def test_small_changes_of_the_norm_are_not_rounded_away_or_up(change: float, shown: str) -> None:
    found = drift_summary(rows({(0, "a"): 0.9, (0, "b"): 0.8}).assign(norm_change=change), draws=100)
    assert drift_table(found).iloc[0, 4] == shown


def test_a_single_fact_has_no_interval() -> None:
    found = drift_summary(rows({(0, "a"): 0.9}))
    assert found[["low", "high"]].isna().all(axis=None)
    assert drift_table(found).iloc[0, 3] == "0.900"


def test_what_is_no_drift_is_refused() -> None:
    with pytest.raises(DataError, match="lacks the column cosine"):
        drift_summary(rows({(0, "a"): 0.9}).drop(columns="cosine"))
    with pytest.raises(DataError, match="Unknown quantity 'keys'"):
        drift_summary(rows({(0, "a"): 0.9}, "keys"))
