"""Every rate, counted by hand on a table small enough to check by eye."""

from __future__ import annotations

import pandas as pd
import pytest

from indelible.errors import DataError, UnknownNameError
from indelible.numbers.answers import Answers, outcomes, pooled
from indelible.numbers.measures import FURTHER, rate_named, rates
from simulated import answer_row

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
    "intrinsic_intact": 4 / 5,  # r was damaged by the edit
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
            # By first token only fact b was ever edited in, and it is gone at the end.
            more = {"kind": kind, "wording": int(wording), "first_token": fact_id == "b" and phase == "edited"}
            rows.append(answer_row(fact_set, fact_id, phase, mark == "1", editor=editor, seed=seed, **more))
    return pd.DataFrame(rows)


def answers(*tables: pd.DataFrame) -> Answers:
    return Answers(pd.concat(tables).assign(arm="arm"))


def names_of_rates() -> list[str]:
    """Of the kinds of questions that every exam asks."""
    return [rate.name for rate in rates() if not rate.matched and rate.kind not in FURTHER]


def by_name(found: Answers) -> dict[str, float | None]:
    names = names_of_rates()
    counted = {name: found.counts("arm", name) for name in names}
    return {name: pooled(count) for name, count in counted.items() if count is not None}


def test_every_rate_is_the_one_counted_by_hand() -> None:
    found = by_name(answers(by_hand()))
    assert found == pytest.approx(EXPECTED) and list(found) == names_of_rates()


def test_the_control_is_measured_from_base_and_has_nothing_about_edits() -> None:
    assert by_name(answers(by_hand("none"))) == pytest.approx(
        {
            "intrinsic_intact": None,
            "retention_intrinsic": 2 / 4,
            "retention_intrinsic_base": 2 / 4,
            "retention_intrinsic_paraphrase": 0.0,
        }
    )


def test_seeds_are_pooled_and_do_not_mix() -> None:
    count = answers(by_hand(seed=0), by_hand(seed=1)).counts("arm", "retention_edited")
    assert count is not None and (count["hits"].sum(), count["asked"].sum(), len(count)) == (2, 6, 8)


def test_a_seed_that_was_not_tuned_is_missing_rather_than_forgotten() -> None:
    second = by_hand(seed=1)
    both = answers(by_hand(seed=0), second[second["phase"] != "tuned"])
    count = both.counts("arm", "retention_edited")
    assert count is not None and set(count.index.get_level_values("seed")) == {0}
    assert by_name(both)["retention_edited"] == pytest.approx(1 / 3)
    assert by_name(both)["edit_success"] == pytest.approx(6 / 8)


def test_facts_outside_the_denominator_stay_in_the_table() -> None:
    count = answers(by_hand()).counts("arm", "retention_edited")
    assert count is not None and count.loc[(0, 0, "d")].to_list() == [0, 0]


def test_nothing_asked_gives_none() -> None:
    failed = by_hand()
    found = by_name(answers(failed[failed["phase"] == "base"]))
    assert found.keys() == EXPECTED.keys() and set(found.values()) == {None}


def test_points_of_the_curve_are_left_aside() -> None:
    rows = by_hand()
    curve = rows[rows["phase"] == "tuned"].assign(phase="tuning", success=False)
    with_curve = outcomes(pd.concat([rows, curve]))
    pd.testing.assert_frame_equal(with_curve, outcomes(rows))


def test_two_answers_to_one_question_are_an_error() -> None:
    rows = by_hand()
    with pytest.raises(DataError, match=r"'a'.*two answers"):
        outcomes(pd.concat([rows, rows.iloc[:1]]))


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="lacks the columns wording, success"):
        outcomes(by_hand().drop(columns=["success", "wording"]))


def test_names_that_are_no_rate_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'retention_edited'"):
        rate_named("retention_edit")
    with pytest.raises(TypeError, match="gap is no rate"):
        rate_named("gap")
