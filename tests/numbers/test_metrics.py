"""Every rate, counted by hand on a table small enough to check by eye."""

from __future__ import annotations

import pandas as pd
import pytest

from indelible.errors import DataError
from indelible.numbers.measures import (
    MEASURES,
    arm_counts,
    counts,
    flip_ratio,
    gap,
    outcomes,
    rate,
)

# set, fact, kind, wording, then success in base, edited, tuned; "-" where it was not asked
BY_HAND = """
edited    a prompt     0  0 1 1
edited    b prompt     0  0 1 0
edited    c prompt     0  0 1 0
edited    d prompt     0  0 0 1
edited    a paraphrase 0  0 1 1
edited    a paraphrase 1  0 1 0
edited    b paraphrase 0  0 0 0
edited    a neighbour  0  1 1 0
edited    a neighbour  1  1 0 0
edited    b neighbour  0  1 1 1
edited    b neighbour  1  0 1 1
intrinsic p prompt     0  1 1 1
intrinsic q prompt     0  1 1 0
intrinsic r prompt     0  1 0 0
intrinsic s prompt     0  1 1 1
intrinsic t prompt     0  1 1 -
intrinsic p paraphrase 0  1 1 0
intrinsic p paraphrase 1  0 0 0
"""

EXPECTED = {
    "edit_success": 3 / 4,
    "edit_success_first_token": 1 / 4,
    "paraphrase_success": 2 / 3,
    "locality": 2 / 3,  # of three that succeeded in base; the fourth only succeeds after the edit
    "retention_edited": 1 / 3,  # d gained its answer in tuning: not among those that had succeeded
    "retention_intrinsic": 2 / 3,  # p, q, s; r was damaged by the edit and t was not asked again
    "retention_paraphrase": 1 / 2,
    "retention_intrinsic_paraphrase": 0 / 1,
    "retention_neighbour": 2 / 3,  # of three that succeeded in edited
    "retention_intrinsic_base": 2 / 4,  # p, q, r, s: here the edit's damage to r counts
    "retention_edited_first_token": 0 / 1,
}


def by_hand(editor: str = "memit", seed: int = 0) -> pd.DataFrame:
    rows = []
    for line in BY_HAND.strip().splitlines():
        fact_set, fact_id, kind, wording, *marks = line.split()
        for phase, mark in zip(("base", "edited", "tuned"), marks, strict=True):
            if mark == "-" or (editor == "none" and phase == "edited"):
                continue
            rows.append(
                {
                    "editor": editor,
                    "seed": seed,
                    "phase": phase,
                    "fact_set": fact_set,
                    "fact_id": fact_id,
                    "kind": kind,
                    "copy": 0,
                    "wording": int(wording),
                    "success": mark == "1",
                    # by first token only fact b was ever edited in, and it is gone at the end
                    "first_token": fact_id == "b" and phase == "edited",
                }
            )
    return pd.DataFrame(rows)


def test_every_rate_is_the_one_counted_by_hand() -> None:
    counted = arm_counts(by_hand())
    assert {name: rate(count) for name, count in counted.items()} == pytest.approx(EXPECTED)
    assert counted.keys() == MEASURES.keys()


def test_the_control_is_measured_from_base_and_has_nothing_about_edits() -> None:
    counted = arm_counts(by_hand("none"))
    rates = {name: rate(count) for name, count in counted.items()}
    assert rates == pytest.approx(
        {
            "retention_intrinsic": 2 / 4,
            "retention_intrinsic_base": 2 / 4,
            "retention_intrinsic_paraphrase": 0.0,
        }
    )


def test_seeds_are_pooled_and_do_not_mix() -> None:
    both = pd.concat([by_hand(seed=0), by_hand(seed=1)])
    count = arm_counts(both)["retention_edited"]
    assert (count["hits"].sum(), count["asked"].sum(), len(count)) == (2, 6, 8)


def test_a_seed_that_was_not_tuned_is_missing_rather_than_forgotten() -> None:
    second = by_hand(seed=1)
    both = pd.concat([by_hand(seed=0), second[second["phase"] != "tuned"]])
    counted = arm_counts(both)
    assert rate(counted["retention_edited"]) == pytest.approx(1 / 3)
    assert set(counted["retention_edited"].index.get_level_values("seed")) == {0}
    assert rate(counted["edit_success"]) == pytest.approx(6 / 8)


def test_facts_outside_the_denominator_stay_in_the_sample() -> None:
    count = arm_counts(by_hand())["retention_edited"].reset_index()
    assert count[count["fact_id"] == "d"].to_dict("records") == [
        {"seed": 0, "copy": 0, "fact_id": "d", "hits": 0, "asked": 0}
    ]


def test_nothing_asked_gives_none() -> None:
    failed = by_hand()
    failed = failed[failed["phase"] == "base"]
    counted = arm_counts(failed)
    assert all(rate(count) is None for count in counted.values())
    assert arm_counts(failed.iloc[:0]).keys() == MEASURES.keys()


def test_points_of_the_curve_are_left_aside() -> None:
    rows = by_hand()
    curve = rows[rows["phase"] == "tuned"].assign(phase="tuning", success=False)
    with_curve = outcomes(pd.concat([rows, curve]))
    pd.testing.assert_frame_equal(with_curve, outcomes(rows))


def test_the_order_of_rows_does_not_matter() -> None:
    rows = by_hand()
    measure = MEASURES["locality"]
    pd.testing.assert_frame_equal(
        counts(outcomes(rows.sample(frac=1, random_state=3)), measure), counts(outcomes(rows), measure)
    )


def test_two_answers_to_one_question_are_an_error() -> None:
    rows = by_hand()
    with pytest.raises(DataError, match=r"'a'.*two answers"):
        outcomes(pd.concat([rows, rows.iloc[:1]]))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="lacks the columns wording, success"):
        outcomes(by_hand().drop(columns=["success", "wording"]))


def test_flip_ratio_and_gap() -> None:
    assert flip_ratio(0.375) == 0.625
    assert flip_ratio(None) is None
    assert gap(0.75, 0.5) == 0.25
    assert gap(None, 0.5) is None
    assert gap(0.5, None) is None
