"""The matched gap: who is matched with whom, what is left out, and that balance is what it says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from indelible.numbers.matching import matched_gap, mean_matched_gap
from simulated import simulate_confidence

DRAWS = 500


def arm(facts: list[tuple[str, str, str, float, bool]], seed: int = 0, name: str = "memit") -> pd.DataFrame:
    """Rows from (set, fact, relation, probability in edited, kept), all of which had succeeded in edited."""
    return pd.DataFrame(
        {
            "arm": name,
            "editor": "memit",
            "seed": seed,
            "copy": 0,
            "phase": phase,
            "fact_set": fact_set,
            "fact_id": fact,
            "relation": relation,
            "kind": "prompt",
            "wording": 0,
            "success": success,
            "log_prob": np.log(probability),
        }
        for fact_set, fact, relation, probability, kept in facts
        for phase, success in (("edited", True), ("tuned", kept))
    )


WORKED = [
    ("edited", "a", "capital", 0.50, False),
    ("edited", "b", "capital", 0.90, True),
    ("edited", "c", "language", 0.50, True),
    ("intrinsic", "p", "capital", 0.51, True),
    ("intrinsic", "q", "capital", 0.88, True),
    ("intrinsic", "r", "currency", 0.50, False),
    ("intrinsic", "s", "capital", 0.01, False),
]


def test_matches_are_by_relation_then_by_nearness() -> None:
    """By hand: a with p, b with q, c (no language among the intrinsic) with r and p, which are as good as equally near.

    Intrinsic facts so matched kept (1 + 1 + ½) of 3, edits 2 of 3. The fact s is nowhere near.
    """
    found = matched_gap(arm(WORKED), draws=DRAWS)
    assert (found.matched, found.unmatched) == (3, 0)
    assert found.effect.value == pytest.approx(2.5 / 3 - 2 / 3)
    balance = found.balance.set_index("facts")
    assert balance.loc["all", ["edits", "intrinsic_facts"]].to_list() == [3, 4]
    assert balance.loc["matched", ["edits", "intrinsic_facts"]].to_list() == [3, 3]
    assert balance.loc["matched", "same_relation"] == pytest.approx(2 / 3)
    matched_mean = (np.log(0.51) + np.log(0.88) + (np.log(0.50) + np.log(0.51)) / 2) / 3
    assert balance.loc["matched", "intrinsic"] == pytest.approx(matched_mean)
    assert balance.loc["all", "difference"] == pytest.approx(
        np.log([0.5, 0.9, 0.5]).mean() - np.log([0.51, 0.88, 0.5, 0.01]).mean()
    )
    assert abs(balance.loc["matched", "standardised_difference"]) < abs(balance.loc["all", "standardised_difference"])


def test_edits_that_no_intrinsic_fact_is_near_are_left_out_and_counted() -> None:
    found = matched_gap(arm([*WORKED, ("edited", "d", "capital", 0.9999, False)]), draws=DRAWS)
    assert (found.matched, found.unmatched) == (3, 1)
    assert found.effect.value == pytest.approx(2.5 / 3 - 2 / 3)


def test_seeds_are_matched_by_themselves() -> None:
    other = [
        (fact_set, f"{fact}2", relation, probability**3, kept) for fact_set, fact, relation, probability, kept in WORKED
    ]
    both = matched_gap(pd.concat([arm(WORKED), arm(other, seed=1)]), draws=DRAWS)
    assert both.effect.seeds == 2
    shifted = arm(other, seed=1)
    far = shifted["fact_set"] == "edited"
    shifted.loc[far, "log_prob"] = np.log(0.99999)
    apart = matched_gap(pd.concat([arm(WORKED), shifted]), draws=DRAWS)
    assert (apart.matched, apart.unmatched) == (3, 3)


def test_what_failed_in_edited_or_was_not_asked_again_has_no_part() -> None:
    rows = arm(WORKED)
    failed = (rows["fact_id"] == "a") & (rows["phase"] == "edited")
    rows.loc[failed, "success"] = False
    missing = rows[~((rows["fact_id"] == "b") & (rows["phase"] == "tuned"))]
    assert matched_gap(missing, draws=DRAWS).matched == 1


def test_the_interval_covers_a_true_matched_gap() -> None:
    generator = np.random.default_rng(11)
    covered = studies = 60
    for study in range(studies):
        rows, truth = simulate_confidence(effect=1.0, seeds=2, generator=generator)
        interval = matched_gap(rows, draws=DRAWS, seed=study).effect.interval
        assert interval is not None and truth > 0.1
        covered -= not interval.low <= truth <= interval.high
    assert covered / studies >= 0.9  # 95%, and what 60 studies may take from it


def test_matching_balances_confidence_and_does_not_depend_on_the_order_of_rows() -> None:
    rows, _ = simulate_confidence(seeds=3, generator=np.random.default_rng(0))
    found = matched_gap(rows, draws=DRAWS)
    balance = found.balance.set_index("facts")["standardised_difference"]
    assert balance["all"] < -0.8
    assert abs(balance["matched"]) < 0.1
    shuffled = matched_gap(rows.sample(frac=1, random_state=1), draws=DRAWS)
    assert shuffled.effect == found.effect
    pd.testing.assert_frame_equal(shuffled.balance, found.balance)


def test_means_over_arms_draw_shared_facts_together() -> None:
    rows, _ = simulate_confidence(seeds=3, generator=np.random.default_rng(0))
    gaps = [matched_gap(rows.assign(arm=name), draws=4_000) for name in ("memit", "twin")]
    mean = mean_matched_gap(gaps)
    alone = mean_matched_gap(gaps[:1])
    assert alone == gaps[0].effect
    assert mean.value == pytest.approx(gaps[0].effect.value)
    assert mean.facts == gaps[0].effect.facts
    assert mean.interval is not None and alone.interval is not None
    # The twin knows nothing that the first arm did not: the mean is no surer than one arm.
    assert mean.interval.high - mean.interval.low > 0.9 * (alone.interval.high - alone.interval.low)


def test_without_edits_or_without_matches_there_is_no_matched_gap() -> None:
    for rows in (
        arm(WORKED).assign(editor="none"),
        arm([line for line in WORKED if line[0] == "edited"]),
        arm([line for line in WORKED if line[0] == "intrinsic"]),
        arm(WORKED).iloc[:0],
    ):
        found = matched_gap(rows, draws=DRAWS)
        assert found.effect.value is None and found.matched == 0
        assert mean_matched_gap([found]).value is None
