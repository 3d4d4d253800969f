"""Retention curves: where they start and end, and what happens when seeds stop at different steps or fail."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from indelible.numbers.answers import Answers, pooled
from indelible.numbers.curves import retention_curves
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import rates
from simulated import SimulatedArm, answer_row, simulate


def answers(seed: int, phase: str, step: int, successes: str, copy: int = 0) -> list[dict[str, object]]:
    """Rows of one exam on the intrinsic facts; one digit per fact."""
    about = {"arm": "a", "seed": seed, "step": step, "copy": copy}
    return [
        answer_row("intrinsic", f"fact-{index}", phase, mark == "1", **about) for index, mark in enumerate(successes)
    ]


def shares(rows: list[dict[str, object]]) -> dict[int, float | None]:
    curves = retention_curves(Answers(pd.DataFrame(rows), draws=50), "a")
    return {step: point.value for step, point in curves.get("intrinsic", {}).items()}


def test_a_curve_by_hand() -> None:
    rows = (
        answers(0, "base", 0, "1111")
        + answers(0, "edited", 0, "1110")
        + answers(0, "tuning", 0, "0000")
        + answers(0, "tuning", 5, "0110")
        + answers(0, "tuning", 10, "0000")  # the exam at the end falls on the same step, and is the one to keep
        + answers(0, "tuned", 10, "1001")
    )
    assert shares(rows) == {0: 1.0, 5: pytest.approx(2 / 3), 10: pytest.approx(1 / 3)}
    assert shares(rows[::-1]) == shares(rows)


def test_a_seed_that_stopped_early_keeps_its_last_answers() -> None:
    short = answers(0, "edited", 0, "11") + answers(0, "tuning", 5, "11") + answers(0, "tuned", 7, "10")
    long = answers(1, "edited", 0, "11") + answers(1, "tuning", 5, "10") + answers(1, "tuned", 10, "00")
    # Step 7 was asked in one seed only, while the other was still under way: no point there.
    assert shares(short + long) == {0: 1.0, 5: 0.75, 10: 0.25}


def test_each_copy_of_an_isolated_arm_stops_for_itself() -> None:
    def copy(number: int, end: int, before: str, after: str) -> list[dict[str, object]]:
        return answers(0, "edited", 0, before, number) + answers(0, "tuned", end, after, number)

    under_way = answers(0, "tuning", 5, "10", 1)
    # The same two facts are asked of both copies; the one that ended at 5 keeps its answers until 10.
    assert shares(copy(0, 5, "11", "01") + under_way + copy(1, 10, "10", "00")) == {
        0: 1.0,
        5: pytest.approx(2 / 3),
        10: pytest.approx(1 / 3),
    }
    # No point where the other copy was under way and not asked.
    assert shares(copy(0, 5, "11", "01") + copy(1, 10, "10", "00")) == {0: 1.0, 10: pytest.approx(1 / 3)}


def test_doses_stand_where_so_many_tokens_had_been_seen() -> None:
    def seen(rows: list[dict[str, object]], per_step: int) -> list[dict[str, object]]:
        return [row | {"tokens": int(str(row["step"])) * per_step} for row in rows]

    start = answers(0, "edited", 0, "1111") + answers(1, "edited", 0, "1111")
    quick = answers(0, "tuning", 2, "1110") + answers(0, "tuning", 3, "1100") + answers(0, "tuned", 4, "1000")
    slow = answers(1, "tuning", 5, "1111") + answers(1, "tuned", 7, "1110")
    rows = pd.DataFrame(seen(start, 0) + seen(quick, 100) + seen(slow, 40))
    points = retention_curves(Answers(rows, draws=50), "a", [150, 200, 280])["intrinsic"]
    # 150 and 200 are the same exams, at steps 2 and 5, taken at 200; at 280 one seed is at its step 3, the other at its
    # end.
    assert {dose: point.value for dose, point in points.items()} == {0: 1.0, 200: 0.875, 280: 0.625}
    points = retention_curves(Answers(rows, draws=50), "a", [200, 400])["intrinsic"]
    # The second seed ended at 280 and stays as it was then.
    assert {dose: point.value for dose, point in points.items()} == {0: 1.0, 200: 0.875, 400: 0.5}
    ends = pd.DataFrame(seen(start, 0) + seen(answers(0, "tuned", 4, "1000") + answers(1, "tuned", 4, "1110"), 100))
    points = retention_curves(Answers(ends, draws=50), "a", [150, 300, 400])["intrinsic"]
    # Nobody asked on the way.
    assert {dose: point.value for dose, point in points.items()} == {0: 1.0, 400: 0.5}


def test_a_failed_seed_is_left_out_unless_it_is_all_there_is() -> None:
    failed = answers(0, "edited", 0, "11") + answers(0, "tuning", 5, "00")
    done = answers(1, "edited", 0, "11") + answers(1, "tuning", 5, "11") + answers(1, "tuned", 10, "11")
    assert shares(failed + done) == {0: 1.0, 5: 1.0, 10: 1.0}
    assert shares(failed) == {0: 1.0, 5: 0.0}
    further = answers(1, "edited", 0, "11") + answers(1, "tuning", 5, "11") + answers(1, "tuning", 10, "11")
    assert shares(failed + further) == {0: 1.0, 5: 0.5}  # nobody knows what the first would have said at 10


def test_no_curve_without_anything_to_follow() -> None:
    assert shares(answers(0, "edited", 0, "11")) == {}
    assert shares(answers(0, "edited", 0, "00") + answers(0, "tuned", 5, "11")) == {}


def test_a_curve_ends_at_the_retention_of_the_tables_with_its_interval() -> None:
    rows, _ = simulate([SimulatedArm("a")], seeds=(0, 1), generator=np.random.default_rng(2))
    answers_ = Answers(rows, draws=200)
    curves = retention_curves(answers_, "a")
    for rate in rates("curves"):
        curve = curves[rate.series]
        assert max(curve) == 40 and curve[40] == answers_.replicates.of("a", rate)
        assert all(point.low is not None for step, point in curve.items() if step)
    assert curves["edited"][0] == Estimate(1.0)


def test_the_control_follows_what_was_known_in_base() -> None:
    rows, _ = simulate([SimulatedArm("control", editor="none")], generator=np.random.default_rng(2))
    found = Answers(rows, draws=50)
    curves = retention_curves(found, "control")
    assert list(curves) == ["intrinsic"]
    assert curves["intrinsic"][40].value == pooled(found.counts("control", "retention_intrinsic_base"))
